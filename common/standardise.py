"""One standardiser for all labs, from sums: merging moments is addition.

Each lab sends count, sum and sum of squares of each column, shifted by public constants (a
value near the column's middle that stands in the federation file), so that subtracting the
square of the mean from the mean of squares cancels little. All sums are float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

CLIP = 4.0
"""Standardised features beyond ± this many deviations are clipped: a deep feature that is all
but constant in training otherwise reaches hundreds on a new microscope."""

CONSTANT = 1e-6
"""A column whose deviation is below this share of its mean is rounding noise of float32."""

CONSTANT_SCALE = 1.0
"""What such a column is divided by."""


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Count, sum and sum of squares of each column, about a public shift.

    Attributes
    ----------
    count, total, squares : ndarray of shape (n_columns,), float64

    Examples
    --------
    >>> lab_a = Moments.of(np.array([[1.0], [2.0]]), np.zeros(1))
    >>> lab_b = Moments.of(np.array([[6.0]]), np.zeros(1))
    >>> mean, deviation = (lab_a + lab_b).mean_and_deviation(np.zeros(1))
    >>> mean, deviation.round(6)
    (array([3.]), array([2.160247]))
    """

    count: np.ndarray
    total: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, shift: np.ndarray) -> Self:
        """Sum over the rows of `values`; NaN counts as missing.

        Parameters
        ----------
        values : ndarray of shape (n_specimens, n_columns)
        shift : ndarray of shape (n_columns,)
        """
        centred = np.asarray(values, dtype=np.float64) - shift
        present = np.isfinite(centred)
        centred = np.where(present, centred, 0.0)
        return cls(
            count=present.sum(axis=0).astype(np.float64),
            total=centred.sum(axis=0),
            squares=(centred**2).sum(axis=0),
        )

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of both sets of specimens together."""
        return Moments(
            count=self.count + other.count,
            total=self.total + other.total,
            squares=self.squares + other.squares,
        )

    def mean_and_deviation(self, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation (of the population) of each column.

        A column that nobody has gives mean = shift and deviation 0.
        """
        count = np.maximum(self.count, 1.0)
        offset = self.total / count
        variance = np.maximum(self.squares / count - offset**2, 0.0)
        return shift + offset, np.sqrt(variance)


@dataclass(frozen=True, kw_only=True)
class Standardiser:
    """Mean and scale of every feature and target.

    Attributes
    ----------
    feature_mean, feature_scale : ndarray of shape (n_features,), float64
    feature_weight : ndarray of shape (n_features,), float64
        Multiplies a standardised feature, so that groups of few features count beside large ones.
    target_mean, target_scale : ndarray of shape (n_targets,), float64, in the targets' units
    """

    feature_mean: np.ndarray
    feature_scale: np.ndarray
    feature_weight: np.ndarray
    target_mean: np.ndarray
    target_scale: np.ndarray

    @classmethod
    def from_moments(
        cls,
        features: Moments,
        targets: Moments,
        *,
        feature_shift: np.ndarray,
        feature_weight: np.ndarray,
        target_shift: np.ndarray,
    ) -> Standardiser:
        """Build the standardiser of moments that were taken about public shifts.

        Columns that do not vary get the scale 1: they become zero, not noise.
        """
        feature_mean, feature_scale = features.mean_and_deviation(feature_shift)
        target_mean, target_scale = targets.mean_and_deviation(target_shift)
        return cls(
            feature_mean=feature_mean,
            feature_scale=_usable(feature_mean, feature_scale),
            feature_weight=feature_weight,
            target_mean=target_mean,
            target_scale=_usable(target_mean, target_scale),
        )

    @classmethod
    def fit(
        cls,
        features: np.ndarray,
        targets: np.ndarray,
        *,
        feature_shift: np.ndarray,
        feature_weight: np.ndarray,
        target_shift: np.ndarray,
    ) -> Standardiser:
        """Build the standardiser of one table, as a lab alone or a pooled data set needs it."""
        return cls.from_moments(
            Moments.of(features, feature_shift),
            Moments.of(targets, target_shift),
            feature_shift=feature_shift,
            feature_weight=feature_weight,
            target_shift=target_shift,
        )

    def equals(self, other: Standardiser) -> bool:
        """Return whether it is made of the same numbers."""
        return all(map(np.array_equal, vars(self).values(), vars(other).values()))

    @property
    def total_variance(self) -> float:
        """The variance of all standardised features together; clipped values count as they were."""
        varies = self.feature_scale != CONSTANT_SCALE
        return float((self.feature_weight[varies] ** 2).sum())

    def features(self, values: np.ndarray) -> np.ndarray:
        """Standardise features, clip them to ±4 and weigh them; shape kept, float32."""
        # in place: a lab's table in float64 is as large as a processor's cache
        scaled = values.astype(np.float64)
        scaled -= self.feature_mean
        scaled /= self.feature_scale
        np.clip(scaled, -CLIP, CLIP, out=scaled)
        scaled *= self.feature_weight
        weighed: np.ndarray = scaled.astype(np.float32)
        return weighed

    def targets(self, values: np.ndarray) -> np.ndarray:
        """Standardise targets; shape kept, float32, NaN stays NaN."""
        scaled: np.ndarray = (values - self.target_mean) / self.target_scale
        return scaled.astype(np.float32)

    def in_units(self, outputs: np.ndarray) -> np.ndarray:
        """Turn the head's outputs back into the targets' units; shape kept, float64."""
        values: np.ndarray = outputs.astype(np.float64) * self.target_scale + self.target_mean
        return values


def _usable(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    return np.where(deviation > CONSTANT * np.abs(mean), deviation, CONSTANT_SCALE)
