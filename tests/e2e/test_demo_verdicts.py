"""The demo's verdicts agree with what its generator knows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.feature_store import FeatureStore
from client.verdict import HOLD, JOIN
from common.federation import load_federation
from simulation.calibration import ALL, calibrated, coverages
from simulation.consortium import Consortium, open_consortium, read_datasets
from simulation.crosslab import lab_contributions, left_out
from simulation.demo import write_demo
from simulation.experiment import Outcome, run_experiment
from simulation.verdict import gains


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    scratch = tmp_path_factory.mktemp("demo")
    write_demo(scratch / "labs")
    federation = load_federation(scratch / "labs")
    datasets = read_datasets(scratch / "labs", federation)
    return open_consortium(datasets, federation, FeatureStore(Path(scratch / "cache")))


@pytest.fixture(scope="module")
def outcome(consortium: Consortium) -> Outcome:
    return run_experiment(consortium, modes=("federated", "local"), folds=5)


def test_the_smallest_lab_gains_most_and_nobody_is_told_to_hold(outcome: Outcome) -> None:
    found = [gain for gain in gains(outcome) if gain.target == "tensile_strength"]
    smallest = min(outcome.consortium.labs, key=len).lab
    most = max(found, key=lambda gain: gain.mean)
    assert (most.lab, most.verdict) == (smallest, JOIN)
    assert not [gain for gain in gains(outcome) if gain.verdict == HOLD]


def test_intervals_hold_over_all_labs_and_at_each(outcome: Outcome) -> None:
    rows = [row for row in coverages(outcome, calibrated(outcome)) if row.level == 0.9]
    assert {row.lab for row in rows} == {ALL, *(lab.lab for lab in outcome.consortium.labs)}
    for row in rows:
        least = 0.85 if row.lab == ALL else 0.8
        assert least <= row.covered <= 1.0, row
        assert row.lab != ALL or row.covered <= 0.95, row


def test_a_lab_that_the_model_never_saw_is_predicted_worse_or_alike(outcome: Outcome) -> None:
    rows = [row for row in left_out(outcome) if row.target == "youngs_modulus"]
    weights = [row.num_specimens for row in rows]
    without = np.average([row.left_out for row in rows], weights=weights)
    assert without > np.average([row.included for row in rows], weights=weights)


@pytest.mark.parametrize("shuffled", [0, 3, 5])
def test_a_lab_with_shuffled_labels_is_flagged_and_no_honest_lab(
    consortium: Consortium, outcome: Outcome, shuffled: int
) -> None:
    assert not [row for row in lab_contributions(outcome) if row.hurts]
    labs = list(consortium.labs)
    order = np.random.default_rng(1).permutation(len(labs[shuffled]))
    labs[shuffled] = replace(labs[shuffled], targets=labs[shuffled].targets[order])
    quick = consortium.federation.replace(training={"rounds": 1})
    spoiled = run_experiment(Consortium(federation=quick, labs=tuple(labs)), modes=("federated",))
    flagged = {row.lab for row in lab_contributions(spoiled) if row.hurts}
    assert flagged == {labs[shuffled].lab}
