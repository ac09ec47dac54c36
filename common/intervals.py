"""Prediction intervals that hold, calibrated across labs by counts over a fixed public grid.

Split-conformal prediction (Vovk, Gammerman & Shafer 2005; Lei et al. 2018, JASA 113, 1094) with
normalised scores: a residual's size over how unsure the head is there. A quantile of all labs'
scores follows from sums of counts (Lu et al. 2023, ICML, arXiv 2305.17564), to a grid step, rounded
up. Each lab's own quantile is taken of its own counts and of a share of everyone's, so that a lab
with few specimens leans on the others, and one with many on itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

LEVELS = (0.8, 0.9)
"""Share of specimens that an interval is to cover."""

GRID = np.geomspace(0.05, 50.0, 91)
"""Upper edges of the bins of scores, 8 % apart; a last bin holds what is beyond. A finer grid would
make intervals 4 % narrower at most, and tell more of single specimens."""

PRIOR = 20.0
"""How many specimens' worth of the other labs' counts a lab's own are mixed with."""


def score_counts(scores: np.ndarray) -> np.ndarray:
    """Count scores over the grid; NaN counts nowhere.

    Parameters
    ----------
    scores : ndarray of shape (n_specimens, n_targets)

    Returns
    -------
    ndarray of shape (n_targets, n_bins), float64

    Examples
    --------
    >>> counts = score_counts(np.array([[0.001], [1.0], [1e9], [np.nan]]))
    >>> counts.shape, counts[0, [0, -1]].tolist(), float(counts.sum())
    ((1, 92), [1.0, 1.0], 3.0)
    """
    counts = np.zeros((scores.shape[1], len(GRID) + 1))
    for target, column in enumerate(scores.T):
        bins = np.searchsorted(GRID, column[np.isfinite(column)], side="left")
        np.add.at(counts[target], bins, 1.0)
    return counts


def quantiles(counts: np.ndarray, levels: Sequence[float] = LEVELS) -> np.ndarray:
    """Return the conformal quantiles of counted scores.

    Parameters
    ----------
    counts : ndarray of shape (n_targets, n_bins)

    Returns
    -------
    ndarray of shape (n_levels, n_targets)
        The edge below which ceil((n + 1) level) scores lie; infinite where n is too small for it.

    Examples
    --------
    >>> counts = score_counts(np.array([[0.1], [0.2], [0.3], [0.4]]))
    >>> quantiles(counts, (0.5, 0.9)).round(1).tolist()
    [[0.3], [inf]]
    """
    edges = np.append(GRID, np.inf)
    below = counts.cumsum(axis=1)
    total = below[:, -1:]
    found = []
    for level in levels:
        # counts that were rounded or mixed are no whole numbers: a hair of slack
        rank = np.ceil((total + 1.0) * level - 1e-9)
        reached = below >= rank - 1e-9
        first = np.where(reached.any(axis=1), reached.argmax(axis=1), len(GRID))
        found.append(edges[first])
    return np.array(found)


def shrunk(own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mix a lab's counts with `PRIOR` specimens' worth of the other labs'.

    Parameters
    ----------
    own, others : ndarray of shape (n_targets, n_bins)
    """
    total = others.sum(axis=1, keepdims=True)
    worth = np.minimum(PRIOR, total) / np.maximum(total, 1.0)
    mixed: np.ndarray = own + worth * others
    return mixed


def coverage(counts: np.ndarray, quantile: np.ndarray) -> np.ndarray:
    """Return the share of counted scores that lie below some quantiles of the grid.

    Parameters
    ----------
    counts : ndarray of shape (n_targets, n_bins)
    quantile : ndarray of shape (n_levels, n_targets)

    Returns
    -------
    ndarray of shape (n_levels, n_targets); NaN for a target without scores
    """
    edges = np.append(GRID, np.inf)
    inside = edges[None, None, :] <= quantile[:, :, None] * (1 + 1e-12)
    total = counts.sum(axis=1)
    shares: np.ndarray = (inside * counts).sum(axis=2) / np.where(total > 0, total, np.nan)
    return shares


@dataclass(frozen=True, kw_only=True)
class CalibrationSums:
    """What calibration needs of a lab's held-out specimens, split into two halves by chance.

    Quantiles of one half are tried on the other: coverage is measured on specimens that no
    quantile has seen, and both halves count in the end.

    Attributes
    ----------
    counts : ndarray of shape (2, n_targets, n_bins), float64
        Scores over the grid.
    spreads : ndarray of shape (2, n_targets), float64
        Sums of the scale that residuals were divided by, in the targets' units.
    novelty : ndarray of shape (n_bins,), float64
        Novelty scores over the same grid.
    """

    counts: np.ndarray
    spreads: np.ndarray
    novelty: np.ndarray

    @staticmethod
    def shapes(num_targets: int) -> dict[str, tuple[int, ...]]:
        """Return the name and shape of each array."""
        bins = len(GRID) + 1
        return {"counts": (2, num_targets, bins), "spreads": (2, num_targets), "novelty": (bins,)}

    def __add__(self, other: CalibrationSums) -> CalibrationSums:
        """Return the sums over both sets of specimens."""
        return CalibrationSums(
            **{
                field.name: getattr(self, field.name) + getattr(other, field.name)
                for field in fields(self)
            }
        )

    def merged(self, least: int) -> CalibrationSums:
        """Put a target's two halves into one where either holds fewer than `least` specimens.

        Examples
        --------
        >>> counts = np.zeros((2, 1, len(GRID) + 1))
        >>> counts[0, 0, 5], counts[1, 0, 7] = 30.0, 2.0
        >>> sums = CalibrationSums(counts=counts, spreads=np.ones((2, 1)), novelty=counts[0, 0])
        >>> sums.merged(20).counts.sum(axis=2).ravel().tolist()
        [32.0, 0.0]
        """
        sizes = self.counts.sum(axis=2)
        small = ((sizes > 0) & (sizes < least)).any(axis=0)
        counts, spreads = self.counts.copy(), self.spreads.copy()
        counts[0, small] += counts[1, small]
        spreads[0, small] += spreads[1, small]
        counts[1, small], spreads[1, small] = 0.0, 0.0
        return CalibrationSums(counts=counts, spreads=spreads, novelty=self.novelty)


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Half-widths of intervals, as multiples of the head's spread.

    Attributes
    ----------
    quantile : ndarray of shape (n_levels, n_targets)
        Infinite where there were too few specimens to calibrate on.
    """

    quantile: np.ndarray

    @classmethod
    def calibrated(cls, counts: np.ndarray) -> Intervals:
        """Calibrate on counts of shape (n_targets, n_bins)."""
        return cls(quantile=quantiles(counts))

    def around(self, predicted: np.ndarray, spread: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower and the upper ends.

        Parameters
        ----------
        predicted, spread : ndarray of shape (n_specimens, n_targets), in the targets' units

        Returns
        -------
        lower, upper : ndarray of shape (n_levels, n_specimens, n_targets)
            In the order of `LEVELS`.

        Examples
        --------
        >>> intervals = Intervals(quantile=np.array([[1.0], [2.0]]))
        >>> lower, upper = intervals.around(np.array([[10.0]]), np.array([[0.5]]))
        >>> lower.ravel().tolist(), upper.ravel().tolist()
        ([9.5, 9.0], [10.5, 11.0])
        """
        half = self.quantile[:, None, :] * spread[None]
        return predicted[None] - half, predicted[None] + half
