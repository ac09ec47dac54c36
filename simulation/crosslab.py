"""What labs' models are worth at other labs, and how far their features lie apart."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from common.report.content import MOST_LABS
from server.contribution import Contribution, contributions
from server.shift import distances
from simulation.experiment import Outcome


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """What a lab would get from a model that has never seen it.

    Attributes
    ----------
    lab, target, unit : str
    left_out, included : float
        Mean absolute error on the lab's held-out specimens, in the target's unit, of ridge
        regression over the other labs, and over all.
    num_specimens : int
    """

    lab: str
    target: str
    unit: str
    left_out: float
    included: float
    num_specimens: int


def cross_errors(outcome: Outcome, target: int) -> np.ndarray:
    """Return the mean absolute error of each lab's own head at each lab, and the shared head's.

    Returns
    -------
    ndarray of shape (n_labs + 1, n_labs), in the target's unit
        Rows are heads, the last one the shared head; columns are where they are tried. NaN where a
        head has not learned the target, or nothing was measured.
    """
    labs = outcome.consortium.labs
    rows = [*outcome.evidence.cross, outcome.predicted["federated"]]
    return np.array(
        [
            [
                _mean_error(lab.targets[:, target], predicted[:, target])
                for lab, predicted in zip(labs, of_head, strict=True)
            ]
            for of_head in rows
        ]
    )


@lru_cache(maxsize=1)
def left_out(outcome: Outcome) -> list[LeftOut]:
    """Compare ridge regression without each lab with ridge regression over all."""
    versions = outcome.evidence.versions
    rows = []
    for column, (name, target) in enumerate(outcome.consortium.federation.targets.items()):
        for index, lab in enumerate(outcome.consortium.labs):
            measured = lab.targets[:, column]
            without, included = (
                versions[version][index][:, column] for version in ("left out", "ridge")
            )
            count = int((np.isfinite(measured) & np.isfinite(without)).sum())
            if count:
                row = LeftOut(
                    lab=lab.lab,
                    target=name,
                    unit=target.unit,
                    left_out=_mean_error(measured, without),
                    included=_mean_error(measured, included),
                    num_specimens=count,
                )
                rows.append(row)
    return rows


@lru_cache(maxsize=1)
def feature_distances(outcome: Outcome) -> tuple[list[str], np.ndarray] | None:
    """Return the labs and the distances of their features in the first fold, if there are sums."""
    if not outcome.evidence.products:
        return None
    of_labs = outcome.evidence.products[0].of_labs
    return (list(of_labs), distances(of_labs)) if len(of_labs) <= MOST_LABS else None


@lru_cache(maxsize=1)
def lab_contributions(outcome: Outcome) -> list[Contribution]:
    """Return what each lab contributes, by the sums of the first fold."""
    if not outcome.evidence.products:
        return []
    targets = tuple(outcome.consortium.federation.targets)
    return contributions(outcome.evidence.products[0].of_labs, targets)


def _mean_error(measured: np.ndarray, predicted: np.ndarray) -> float:
    error = np.abs(measured - predicted)
    seen = np.isfinite(error)
    return float(error[seen].mean()) if seen.any() else float("nan")
