"""What a run learns beside the head: sums of products of each lab, and how the head was tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from common.gram import GramSums
from common.intervals import CalibrationSums
from common.metrics import ErrorSums
from common.novelty import Novelty
from common.ridge import RidgeFit, fit_ridge
from server.contribution import leave_one_lab_out

if TYPE_CHECKING:
    # torch comes with it
    from common.head import HeadArrays

Kind = Literal["errors", "baseline", "calibration"]

CrossErrors: TypeAlias = Mapping[str, Mapping[str, np.ndarray]]
"""Mean absolute errors of shape (n_targets,), in the targets' units: of the own head of the lab
that is named first, at the lab that is named second. NaN where the head has not learned a target,
or the other lab tells nothing of it."""


@dataclass(frozen=True, kw_only=True)
class Products:
    """Sums of products of the labs' training specimens, along a basis that all share.

    Attributes
    ----------
    basis : ndarray of shape (n_features, n_components), orthonormal
    of_labs : mapping of str to GramSums
        By name, in the order of the names.
    variance : float
        Of all standardised features together.
    """

    basis: np.ndarray
    of_labs: Mapping[str, GramSums]
    variance: float

    @cached_property
    def total(self) -> GramSums:
        """The sums over the specimens of all labs."""
        return GramSums.total(self.of_labs.values())

    def solve(self) -> None:
        """Compute what follows from the sums, which else is computed when it is first asked for."""
        _ = self.ridge, self.novelty, self.left_out

    @cached_property
    def ridge(self) -> RidgeFit:
        """Ridge regression over all labs: the baseline."""
        return fit_ridge(self.total)

    @property
    def baseline(self) -> HeadArrays:
        """Ridge regression as a head over features."""
        return self.ridge.head(self.basis)

    @cached_property
    def left_out(self) -> dict[str, RidgeFit]:
        """For each lab, ridge regression over the others: what a new lab would get."""
        return leave_one_lab_out(self.of_labs)

    @cached_property
    def novelty(self) -> Novelty:
        """How far from all labs' specimens a specimen is, with a threshold yet to calibrate."""
        return Novelty.of(self.total, self.basis, self.variance)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What the labs say of the shared head on their held-out specimens, by lab.

    Attributes
    ----------
    errors, baseline : mapping of str to ErrorSums
        Of the head, and of ridge regression, of the labs that have enough to share them.
    calibration : mapping of str to CalibrationSums
    """

    errors: Mapping[str, ErrorSums] = field(default_factory=dict)
    baseline: Mapping[str, ErrorSums] = field(default_factory=dict)
    calibration: Mapping[str, CalibrationSums] = field(default_factory=dict)

    def total(self, kind: Kind) -> Any:
        """Return the sums over all labs that tell, or None where none does.

        Returns
        -------
        ErrorSums, CalibrationSums or None
        """
        of_labs = list(getattr(self, kind).values())
        return sum(of_labs[1:], start=of_labs[0]) if of_labs else None

    def novelty(self, uncalibrated: Novelty) -> Novelty:
        """Return the novelty with the threshold that held-out specimens give."""
        sums = self.total("calibration")
        return uncalibrated if sums is None else uncalibrated.calibrated(sums.novelty)
