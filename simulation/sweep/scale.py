"""How good a trial is: one number, from predictions for the inner held-out specimens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import ConfigurationError
from common.metrics import ErrorSums
from simulation.consortium import Consortium
from simulation.sweep.trial import HELD_OUT, Roles


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How predictions for the inner held-out specimens of a study become one number.

    Attributes
    ----------
    measured : tuple of ndarray of shape (n_specimens, n_targets)
        One a lab, in the targets' units; NaN for specimens that the study never sees.
    spread : ndarray of shape (n_targets,)
        Standard deviation of each target over them: what predicting their mean would err by.
    counted : ndarray of shape (n_targets,), bool
        Targets that count: the named one, or all that a lab may share.
    is_one : bool
        Whether a target was named: its RMSE is the score, in its unit.
    """

    measured: tuple[np.ndarray, ...]
    spread: np.ndarray
    counted: np.ndarray
    is_one: bool

    @classmethod
    def of(cls, own: Consortium, inner: Sequence[Roles], target: str | None) -> Scale:
        """Return the scale of a study, from the specimens that it may see alone.

        Parameters
        ----------
        own : Consortium
        inner : sequence of Roles
            The study's runs.
        target : str or None
            The one that counts alone.

        Raises
        ------
        ConfigurationError
            If the target that was named varies nowhere, or no lab may share it.
        """
        federation, labs = own.federation, own.labs
        seen = [
            np.any([roles[index] == HELD_OUT for roles in inner], axis=0)
            for index in range(len(labs))
        ]
        measured = tuple(
            np.where(rows[:, None], lab.targets, np.nan)
            for lab, rows in zip(labs, seen, strict=True)
        )
        pooled = np.concatenate(measured)
        known = np.isfinite(pooled)
        counts = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, pooled, 0.0).sum(axis=0) / counts
        spread = np.sqrt((np.where(known, pooled - mean, 0.0) ** 2).sum(axis=0) / counts)
        least = federation.privacy.min_specimens
        shared = np.any([np.isfinite(lab.targets).sum(axis=0) >= least for lab in labs], axis=0)
        asked = [target in (None, name) for name in federation.targets]
        counted = shared & (spread > 0) & np.array(asked)
        if not counted.any():
            which = target or "any target"
            raise ConfigurationError(
                f"no lab has {least} values of {which} that differ; a sweep has nothing to compare"
            )
        return cls(
            measured=measured,
            spread=spread,
            counted=counted,
            is_one=target is not None,
        )

    def rmse(
        self, predicted: Sequence[np.ndarray], measured: Sequence[np.ndarray] | None = None
    ) -> np.ndarray:
        """Return the RMSE of each target over the specimens of all labs, in its unit.

        Parameters
        ----------
        predicted : sequence of ndarray of shape (n_specimens, n_targets)
            One a lab; NaN does not count.
        measured : sequence of ndarray of shape (n_specimens, n_targets), optional
            Of an outer test; else what the study may see.

        Returns
        -------
        ndarray of shape (n_targets,)
            NaN where nothing was predicted.
        """
        nothing = np.zeros(len(self.spread))
        first, *others = [
            ErrorSums.of(truth, values, nothing)
            for truth, values in zip(measured or self.measured, predicted, strict=True)
        ]
        total = sum(others, start=first)
        mean_square = np.where(total.count > 0, total.squared, np.nan) / np.maximum(total.count, 1)
        root: np.ndarray = np.sqrt(mean_square)
        return root

    def score(self, rmse: np.ndarray) -> float:
        """Return what a sweep minimises."""
        if self.is_one:
            return float(rmse[self.counted][0])
        return float((rmse[self.counted] / self.spread[self.counted]).mean())
