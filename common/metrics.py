"""RMSE, MAE and R² of a target, from sums that can be added across labs."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from common.counts import in_digits


@dataclass(frozen=True, kw_only=True)
class ErrorSums:
    """Sums over specimens, one entry a target, from which the metrics follow.

    Attributes
    ----------
    count : ndarray of shape (n_targets,), specimens with that target measured
    absolute, squared : ndarray of shape (n_targets,)
        Sums of the error's size and square, in the target's unit and its square.
    measured, measured_squared : ndarray of shape (n_targets,)
        Sums of the measured values about a public shift, and of their squares, for R².
    """

    count: np.ndarray
    absolute: np.ndarray
    squared: np.ndarray
    measured: np.ndarray
    measured_squared: np.ndarray

    @classmethod
    def of(cls, measured: np.ndarray, predicted: np.ndarray, shift: np.ndarray) -> ErrorSums:
        """Sum the errors; a specimen counts for a target where both values are finite.

        Parameters
        ----------
        measured, predicted : ndarray of shape (n_specimens, n_targets), in the targets' units
        shift : ndarray of shape (n_targets,)
            Public constants near the middle of each target.
        """
        present = np.isfinite(measured) & np.isfinite(predicted)
        error = np.where(present, predicted - measured, 0.0)
        centred = np.where(present, measured - shift, 0.0)
        return cls(
            count=present.sum(axis=0).astype(np.float64),
            absolute=np.abs(error).sum(axis=0),
            squared=(error**2).sum(axis=0),
            measured=centred.sum(axis=0),
            measured_squared=(centred**2).sum(axis=0),
        )

    def __add__(self, other: ErrorSums) -> ErrorSums:
        """Return the sums over both sets of specimens."""
        return ErrorSums(**{name: getattr(self, name) + getattr(other, name) for name in _names()})

    def to_tell(self) -> ErrorSums:
        """Return the sums with those of the errors to three digits, as metrics are shown.

        No sum of squares gets smaller than its sum of sizes allows.

        Examples
        --------
        >>> measured = np.array([[1.0], [2.0], [3.0]])
        >>> sums = ErrorSums.of(measured, measured + 0.51234, np.zeros(1)).to_tell()
        >>> sums.absolute, sums.metrics(0)["mae"]
        (array([1.54]), 0.5133333333333333)
        """
        absolute = in_digits(self.absolute, 3)
        least = absolute**2 / np.maximum(self.count, 1.0)
        return replace(
            self, absolute=absolute, squared=np.maximum(in_digits(self.squared, 3), least)
        )

    def metrics(self, target: int) -> dict[str, Any]:
        """Return ``r2``, ``mae``, ``rmse`` and ``num_specimens`` of one target.

        What cannot be computed is None: all of it without specimens, R² for fewer than two
        specimens or for equal measured values.

        Examples
        --------
        >>> measured = np.array([[1.0], [2.0], [3.0]])
        >>> sums = ErrorSums.of(measured, measured + 0.5, np.zeros(1))
        >>> sums.metrics(0)
        {'r2': 0.625, 'mae': 0.5, 'rmse': 0.5, 'num_specimens': 3}
        """
        count = float(self.count[target])
        if count == 0:
            return {"r2": None, "mae": None, "rmse": None, "num_specimens": 0}
        spread = float(self.measured_squared[target] - self.measured[target] ** 2 / count)
        squared = float(self.squared[target])
        varies = count > 1 and spread > 1e-12 * float(self.measured_squared[target])
        return {
            "r2": 1.0 - squared / spread if varies else None,
            "mae": float(self.absolute[target]) / count,
            "rmse": float(np.sqrt(squared / count)),
            "num_specimens": int(count),
        }


def _names() -> list[str]:
    return [field.name for field in fields(ErrorSums)]


def as_finite(value: float) -> float | None:
    """Return a number, or None for what is not finite, which JSON and people have no number for.

    Examples
    --------
    >>> as_finite(np.float64(2.0)), as_finite(np.nan)
    (2.0, None)
    """
    return float(value) if np.isfinite(value) else None
