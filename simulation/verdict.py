"""What joining is worth to each lab of a simulation: its own error, alone and joined."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from client.choice import OWN_VERSIONS, SHARED, choose
from client.learning_curve import power_of
from client.verdict import Comparison, Gain, gain_of
from simulation.experiment import Outcome


@lru_cache(maxsize=1)
def gains(outcome: Outcome) -> list[Gain]:
    """Compare local with federated for each target and lab that measures it, target by target.

    Empty unless both modes ran. A lab needs two independent held-out specimens to be compared.
    """
    if not {"local", "federated"} <= outcome.predicted.keys():
        return []
    found = []
    for column in range(len(outcome.consortium.federation.targets)):
        for index in range(len(outcome.consortium.labs)):
            points = [point for point in outcome.evidence.curve if point.lab == index]
            gain = gain_of(_comparison(outcome, index, column), power_of(points, column))
            if gain is not None:
                found.append(gain)
    return found


def chosen_predictions(outcome: Outcome) -> list[np.ndarray]:
    """Return each lab's specimens as predicted by the version that was chosen without them.

    Returns
    -------
    list of ndarray of shape (n_specimens, n_targets), in the targets' units
    """
    num_targets = len(outcome.consortium.federation.targets)
    found = []
    for index in range(len(outcome.consortium.labs)):
        of_lab = [_comparison(outcome, index, column) for column in range(num_targets)]
        columns = [choose(each.measured, each.versions, each.block).predicted for each in of_lab]
        found.append(np.stack(columns, axis=1))
    return found


def _comparison(outcome: Outcome, index: int, column: int) -> Comparison:
    lab, federation = outcome.consortium.labs[index], outcome.consortium.federation
    name = list(federation.targets)[column]
    nothing = np.full(len(lab), np.nan)
    predicted = outcome.predicted
    return Comparison(
        lab=lab.lab,
        target=name,
        unit=federation.targets[name].unit,
        measured=lab.targets[:, column],
        alone=predicted["local"][index][:, column] if "local" in predicted else nothing,
        versions={
            SHARED: predicted["federated"][index][:, column],
            **{name: outcome.evidence.versions[name][index][:, column] for name in OWN_VERSIONS},
        },
        groups=lab.groups,
        block=outcome.blocks[index],
        seed=federation.training.seed,
        num_trained=_num_trained(outcome, index, column),
    )


def _num_trained(outcome: Outcome, index: int, column: int) -> int:
    """Return how many specimens with a target a lab's own head was trained on, in each fold."""
    measured = np.isfinite(outcome.consortium.labs[index].targets[:, column])
    held_out = measured & (outcome.fold[index] >= 0)
    num_folds = int(outcome.fold[index].max()) + 1
    return int(measured.sum() - round(held_out.sum() / num_folds))
