"""How many more specimens of its own would have bought a lab the same gain as joining.

The error of ridge regression on parts of a lab's own specimens falls as a power of their number
(Hestness et al. 2017, arXiv 1712.00409); the lab's own head is taken to follow the same power.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from client.lab import Lab
from common.gram import GramSums
from common.ridge import fit_ridge
from common.seeds import seed_for
from common.standardise import Standardiser

PARTS = (0.4, 0.6, 0.8, 1.0)
DRAWS = 3
DIRECTIONS = 32

FEWEST = 6
"""Specimens that a part has at least."""

MOST_TIMES = 10
"""Beyond so many times a lab's own specimens, a power law is drawn out too far to be believed."""

SLOWEST = 0.02
"""A power below this is no fall: more specimens of the same kind would not help."""


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Errors on one fold's held-out specimens after fitting to a part of the others.

    Attributes
    ----------
    lab : int
    num_specimens : int
        Of the part.
    count, absolute : ndarray of shape (n_targets,)
        Held-out values, and the sum of the sizes of their errors, standardised.
    """

    lab: int
    num_specimens: int
    count: np.ndarray
    absolute: np.ndarray


def points_of(
    index: int, lab: Lab, standardiser: Standardiser, basis: np.ndarray
) -> list[CurvePoint]:
    """Fit to parts of a lab's training specimens, along the directions that all labs share."""
    directions = basis[:, :DIRECTIONS]
    train = standardiser.features(lab.training.features) @ directions
    test = standardiser.features(lab.held_out.features) @ directions
    targets = standardiser.targets(lab.training.targets)
    measured = standardiser.targets(lab.held_out.targets)
    generator = np.random.default_rng(
        seed_for(lab.federation.training.seed, "learning curve", lab.name)
    )
    found = []
    for part in PARTS:
        size = round(part * len(train))
        for _ in range(DRAWS if part < 1 else 1):
            if size < FEWEST:
                continue
            rows = generator.permutation(len(train))[:size]
            error = np.abs(
                fit_ridge(GramSums.of(train[rows], targets[rows])).predict(test) - measured
            )
            seen = np.isfinite(error)
            found.append(
                CurvePoint(
                    lab=index,
                    num_specimens=size,
                    count=seen.sum(axis=0),
                    absolute=np.where(seen, error, 0.0).sum(axis=0),
                )
            )
    return found


def power_of(points: Sequence[CurvePoint], target: int) -> float:
    """Return the power with which the error falls with the number of specimens.

    NaN with fewer than two sizes.

    Examples
    --------
    >>> def point(n: int) -> CurvePoint:
    ...     return CurvePoint(
    ...         lab=0, num_specimens=n, count=np.array([4]), absolute=np.array([40 / n])
    ...     )
    >>> round(power_of([point(10), point(20), point(40)], 0), 6)
    1.0
    """
    sizes = np.array([point.num_specimens for point in points], dtype=np.float64)
    counts = np.array([point.count[target] for point in points], dtype=np.float64)
    sums = np.array([point.absolute[target] for point in points], dtype=np.float64)
    # folds differ a little in size: parts are told apart by their place in the order of sizes
    places = [np.flatnonzero(sizes == size) for size in np.unique(sizes)]
    errors = [
        (sizes[rows[0]], sums[rows].sum() / counts[rows].sum(), counts[rows].sum())
        for rows in places
        if counts[rows].sum() > 0 and sums[rows].sum() > 0
    ]
    if len({size for size, _, _ in errors}) < 2:
        return float("nan")
    x, y, weights = (np.array(column) for column in zip(*errors, strict=True))
    slope = np.polyfit(np.log(x), np.log(y), 1, w=np.sqrt(weights))[0]
    return float(-slope)


def specimens_for(gain: tuple[float, float], num_specimens: int, power: float) -> float | None:
    """Return how many more specimens bring the error down from one value to another.

    Parameters
    ----------
    gain : (float, float)
        Error alone and error together.
    num_specimens : int
        Those that the lab has.
    power : float

    Returns
    -------
    float or None
        Infinite where more specimens would not help, or more than `MOST_TIMES` its own would be
        needed; None where there is no gain or no power.

    Examples
    --------
    >>> specimens_for((2.0, 1.0), 30, power=0.5)
    90.0
    """
    alone, together = gain
    if not together < alone or not np.isfinite(power):
        return None
    if power < SLOWEST:
        return float("inf")
    more = num_specimens * ((alone / together) ** (1.0 / power) - 1.0)
    return float(more) if more <= MOST_TIMES * num_specimens else float("inf")
