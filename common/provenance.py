"""Where a model comes from and how it was tried: what its card tells, in sums over labs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.intervals import LEVELS, CalibrationSums, Intervals, coverage, quantiles
from common.metrics import ErrorSums


@dataclass(frozen=True, kw_only=True)
class TrainingCurve:
    """How training went, round by round, without any lab's name.

    Attributes
    ----------
    train_loss : ndarray of shape (n_rounds,), float64
        Mean over the labs that tell theirs, to three digits; NaN where it is not told.
    num_missing : ndarray of shape (n_rounds,), float64
        How many of the labs that were still in gave no update.
    """

    train_loss: np.ndarray
    num_missing: np.ndarray

    @staticmethod
    def shapes(num_rounds: int) -> dict[str, tuple[int, ...]]:
        """Return the name and shape of each array."""
        return {"train_loss": (num_rounds,), "num_missing": (num_rounds,)}


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Who trained a model, and how it does on specimens that it has not seen.

    Attributes
    ----------
    labs : tuple of str
        Those that took part in a round: names, sorted, of those that let the card name them, then
        *unnamed lab 1* and so on, in the order of their rows below, which tells nothing more.
    num_examples : ndarray of shape (n_labs,), float64
        Training specimens of each, rounded down; 0 where not known.
    left_out_count, left_out_squared : ndarray of shape (n_labs, n_targets), float64
        How ridge regression over the other labs does at each: specimens, and the sum of squared
        errors in the target's unit, squared. 0 where there are too few specimens to tell.
    errors, baseline : ErrorSums or None
        Over the held-out specimens of all labs that tell: of the head, and of ridge regression.
    calibration : CalibrationSums or None
        Over the same; None where no lab tells.
    training : TrainingCurve or None
        None where nobody says how training went.
    """

    labs: tuple[str, ...]
    num_examples: np.ndarray
    left_out_count: np.ndarray
    left_out_squared: np.ndarray
    errors: ErrorSums | None = None
    baseline: ErrorSums | None = None
    calibration: CalibrationSums | None = None
    training: TrainingCurve | None = None

    @staticmethod
    def shapes(num_labs: int, num_targets: int) -> dict[str, tuple[int, ...]]:
        """Return the name and shape of each array."""
        both = (num_labs, num_targets)
        return {"num_examples": (num_labs,), "left_out_count": both, "left_out_squared": both}

    @property
    def intervals(self) -> Intervals | None:
        """Intervals calibrated on all labs' held-out specimens; None where no lab tells counts."""
        if self.calibration is None:
            return None
        return Intervals.calibrated(self.calibration.counts.sum(axis=0))

    @property
    def left_out_rmse(self) -> np.ndarray:
        """Error at each lab of a model that has not seen it, shape (n_labs, n_targets).

        In the targets' units; NaN where it is not told.
        """
        known = np.where(self.left_out_count > 0, self.left_out_count, np.nan)
        rmse: np.ndarray = np.sqrt(self.left_out_squared / known)
        return rmse


def tried_coverage(sums: CalibrationSums) -> np.ndarray:
    """Return how many specimens intervals cover that were calibrated on the others.

    Quantiles of each half are tried on the other half.

    Returns
    -------
    ndarray of shape (n_levels, n_targets)
        Shares; NaN where a half has too few specimens for an interval.

    Examples
    --------
    >>> from common.intervals import score_counts
    >>> half = score_counts(np.linspace(0.1, 2.0, 20)[:, None])
    >>> sums = CalibrationSums(
    ...     counts=np.stack([half, half]), spreads=np.ones((2, 1)), novelty=np.zeros(92)
    ... )
    >>> tried_coverage(sums).round(2).tolist()
    [[0.85], [0.95]]
    """
    inside, seen = np.zeros((len(LEVELS), sums.counts.shape[1])), 0.0
    for one, other in ((0, 1), (1, 0)):
        found = quantiles(sums.counts[one])
        share = coverage(sums.counts[other], found)
        number = sums.counts[other].sum(axis=1)
        # an interval without ends covers everything, and says nothing
        inside += np.where(np.isfinite(found), share, np.nan) * number
        seen = seen + number
    covered: np.ndarray = inside / np.where(seen > 0, seen, np.nan)
    return covered


def mean_half_width(sums: CalibrationSums) -> np.ndarray:
    """Return the mean half-width of the intervals over the specimens that they were made from.

    Returns
    -------
    ndarray of shape (n_levels, n_targets)
        In the targets' units; infinite where there are too few specimens for an interval.
    """
    counts = sums.counts.sum(axis=0)
    number = counts.sum(axis=1)
    spread = sums.spreads.sum(axis=0) / np.maximum(number, 1.0)
    width: np.ndarray = quantiles(counts) * np.where(number > 0, spread, 1.0)
    return width
