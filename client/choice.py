"""Which version of the shared head a lab should use: as it is, its own, or with an offset.

Decided on held-out specimens and tried on others: the specimens are in blocks (folds, or two halves
where there is one split), and the choice for one block is made on all the others. A version of
its own is accepted only where it is clearly better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

SHARED, PERSONALISED, OFFSET = "shared", "personalised", "with an offset"
ALIGNED, CORAL = "on aligned features", "on aligned features (CORAL)"
OWN_VERSIONS = (PERSONALISED, ALIGNED, CORAL)
ALONE = "trained on this lab's specimens alone"
"""No version of the shared head: what a lab stays with where joining is clearly worse."""

FEWEST = 5
"""Specimens that a choice is made on at least."""

CLEARLY = 1.4
"""Standard errors by which a version of its own has to be better: one of several versions is better
by one standard error by chance too often."""

PRIOR = 5.0
"""An offset is shrunk as if so many specimens more had shown none."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What one lab should use for one target.

    Attributes
    ----------
    version : str
        Chosen on all blocks: what the lab would use for its next specimen.
    offset : float
        What it adds to the shared head's prediction; zero but for ``OFFSET``.
    predicted : ndarray of shape (n_specimens,)
        Each specimen by the version that was chosen without it.
    """

    version: str
    offset: float
    predicted: np.ndarray


def choose(measured: np.ndarray, versions: Mapping[str, np.ndarray], block: np.ndarray) -> Choice:
    """Choose between versions, block by block.

    Parameters
    ----------
    measured : ndarray of shape (n_specimens,), in the target's unit
    versions : mapping of str to ndarray of shape (n_specimens,)
        Predictions by ``SHARED`` and by others; an offset is found here.
    block : ndarray of shape (n_specimens,), int64
        Negative where a specimen was never held out.

    Examples
    --------
    >>> measured = np.arange(12.0)
    >>> choose(measured, {SHARED: measured + 5.0}, np.arange(12) % 3).version
    'with an offset'
    """
    shared = versions[SHARED]
    usable = np.isfinite(measured) & np.isfinite(shared) & (block >= 0)
    predicted = shared.copy()
    for own in np.unique(block[usable]):
        rows = usable & (block != own)
        version, offset = _best(measured[rows], {k: v[rows] for k, v in versions.items()})
        here = block == own
        predicted[here] = shared[here] + offset if version == OFFSET else versions[version][here]
    version, offset = _best(measured[usable], {k: v[usable] for k, v in versions.items()})
    return Choice(version=version, offset=offset if version == OFFSET else 0.0, predicted=predicted)


def _best(measured: np.ndarray, versions: Mapping[str, np.ndarray]) -> tuple[str, float]:
    count = len(measured)
    if count < FEWEST:
        return SHARED, 0.0
    residual = measured - versions[SHARED]
    offset = float(residual.sum() / (count + PRIOR))
    # each specimen by the offset of the others
    others = (residual.sum() - residual) / (count - 1 + PRIOR)
    errors = {name: np.abs(measured - predicted) for name, predicted in versions.items()}
    errors[OFFSET] = np.abs(residual - others)
    gains = {name: errors[SHARED] - error for name, error in errors.items() if name != SHARED}
    clear = {
        name: float(gain.mean())
        for name, gain in gains.items()
        if np.isfinite(gain).all() and gain.mean() > CLEARLY * gain.std(ddof=1) / np.sqrt(count)
    }
    best = max(clear, key=lambda name: clear[name], default=SHARED)
    return best, offset
