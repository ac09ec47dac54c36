"""Which version of the shared head a lab should use: as it is, personalised, or with an offset.

Decided on held-out specimens and tried on others: the specimens are in blocks (folds, or two halves
where there is one split), and the choice for one block is made on all the others. A version of
its own is accepted only where it is better by more than a standard error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHARED, PERSONALISED, OFFSET = "shared", "personalised", "with an offset"

FEWEST = 5
"""Specimens that a choice is made on at least."""

PRIOR = 5.0
"""An offset is shrunk as if so many specimens more had shown none."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What one lab should use for one target.

    Attributes
    ----------
    version : str
        Chosen on all blocks: what the lab would use for its next specimen.
    predicted : ndarray of shape (n_specimens,)
        Each specimen by the version that was chosen without it.
    """

    version: str
    predicted: np.ndarray


def choose(
    measured: np.ndarray, shared: np.ndarray, personalised: np.ndarray, block: np.ndarray
) -> Choice:
    """Choose between three versions, block by block.

    Parameters
    ----------
    measured, shared, personalised : ndarray of shape (n_specimens,), in the target's unit
    block : ndarray of shape (n_specimens,), int64
        Negative where a specimen was never held out.

    Examples
    --------
    >>> measured = np.arange(12.0)
    >>> choose(measured, measured + 5.0, measured + 5.0, np.arange(12) % 3).version
    'with an offset'
    """
    usable = np.isfinite(measured) & np.isfinite(shared) & (block >= 0)
    predicted = shared.copy()
    for own in np.unique(block[usable]):
        rows = usable & (block != own)
        version, offset = _best(measured[rows], shared[rows], personalised[rows])
        here = block == own
        if version == PERSONALISED:
            predicted[here] = personalised[here]
        elif version == OFFSET:
            predicted[here] = shared[here] + offset
    version, _ = _best(measured[usable], shared[usable], personalised[usable])
    return Choice(version=version, predicted=predicted)


def _best(measured: np.ndarray, shared: np.ndarray, personalised: np.ndarray) -> tuple[str, float]:
    count = len(measured)
    if count < FEWEST:
        return SHARED, 0.0
    residual = measured - shared
    offset = float(residual.sum() / (count + PRIOR))
    # each specimen by the offset of the others
    others = (residual.sum() - residual) / (count - 1 + PRIOR)
    errors = {
        PERSONALISED: np.abs(measured - personalised),
        OFFSET: np.abs(residual - others),
    }
    gains = {version: np.abs(residual) - error for version, error in errors.items()}
    clear = {
        version: float(gain.mean())
        for version, gain in gains.items()
        if np.isfinite(gain).all() and gain.mean() > gain.std(ddof=1) / np.sqrt(count)
    }
    best = max(clear, key=lambda version: clear[version], default=SHARED)
    return best, offset
