"""What one simulation does with labs, folds and names, on arrays small enough to follow."""

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from client.choice import OFFSET, PERSONALISED, SHARED, choose
from client.dataset import Dataset, Micrograph
from client.specimens import Specimens
from client.verdict import HOLD, JOIN, TOO_FEW, Gain
from common.errors import DivergedError
from common.federation import Federation
from common.release import load_release
from simulation.cli import MODE_NAMES
from simulation.consortium import Consortium, groups_across
from simulation.crosslab import cross_errors, feature_distances, left_out
from simulation.experiment import Outcome, folds_of_labs, run_experiment
from simulation.modes import MODES
from simulation.page import simulation_report
from simulation.parity import TITLES, parity_png
from simulation.released import simulated_release
from simulation.report import MODE_LABELS, predictions_csv, result_record, write_run
from simulation.summary import labs_table, print_summary
from simulation.verdict import gains


def agreement(**training: Any) -> Federation:
    return Federation.model_validate(
        {
            "name": "test",
            "targets": {"strength": {"unit": "MPa", "range": [0, 200]}},
            "imaging": {"scale": "fit"},
            "backbone": {"name": "resnet18"},
            "head": {"hidden": [4]},
            "training": {"rounds": 4, "learning_rate": 0.01} | training,
            "privacy": {"min_specimens": 3},
        }
    )


def lab(name: str, size: int = 15, groups: np.ndarray | None = None) -> Specimens:
    generator = np.random.default_rng(len(name) + size)
    features = generator.gamma(2.0, 0.2, (size, 512)).astype(np.float32)
    return Specimens(
        lab=name,
        ids=tuple(f"{name}{index}" for index in range(size)),
        features=features,
        targets=80 + 10 * features[:, :3].sum(axis=1, keepdims=True).astype(np.float64),
        groups=np.arange(size) if groups is None else groups,
    )


def experiment(*labs: Specimens, **training: Any) -> Outcome:
    consortium = Consortium(federation=agreement(**training), labs=labs)
    return run_experiment(consortium, modes=("federated", "local"), folds=3)


def test_material_that_labs_share_is_held_out_at_both_at_once() -> None:
    batches = np.repeat(np.arange(8), 3)
    one, two = lab("a", 24, batches), lab("b", 24, batches[::-1])
    consortium = Consortium(federation=agreement(), labs=(one, two))
    folds = folds_of_labs(consortium, 4)
    for batch in range(8):
        seen = {int(fold) for part, fold in zip((one, two), folds, strict=True)
                for fold in fold[part.groups == batch]}  # fmt: skip
        assert len(seen) == 1
    assert all(set(fold.tolist()) == {0, 1, 2, 3} for fold in folds)


def dataset(name: str, hashes: list[str], groups: list[int]) -> Dataset:
    images = tuple(
        (Micrograph(path=Path(name), name=name, sha256=digest, um_per_px=None),)
        for digest in hashes
    )
    return Dataset(
        name=name,
        folder=Path(name),
        settings=None,  # type: ignore[arg-type]
        specimens=tuple(hashes),
        micrographs=images,
        targets=np.zeros((len(hashes), 1)),
        covariates=np.zeros((len(hashes), 0)),
        groups=np.array(groups),
        partition=None,
    )


def test_groups_of_two_folders_are_apart_unless_they_share_an_image() -> None:
    first = dataset("a", ["p", "q", "r"], [0, 1, 1])
    second = dataset("b", ["s", "q", "t"], [0, 1, 1])
    one, two = groups_across([first, second])
    assert one.tolist() == [0, 1, 1]
    assert two.tolist() == [2, 1, 1]


def test_images_shared_by_a_chain_of_labs_make_one_group() -> None:
    groups = groups_across(
        [
            dataset("a", ["q", "z"], [0, 1]),
            dataset("b", ["p", "q"], [0, 0]),
            dataset("c", ["p"], [0]),
        ]
    )
    assert [group.tolist() for group in groups] == [[0, 1], [0, 0], [0]]


def test_an_image_seen_under_a_number_that_is_gone_joins_the_new_one() -> None:
    groups = groups_across(
        [dataset("a", ["q"], [0]), dataset("b", ["p", "q"], [0, 0]), dataset("c", ["p"], [0])]
    )
    assert [group.tolist() for group in groups] == [[0], [0, 0], [0]]


def test_the_largest_group_is_not_always_held_out_first() -> None:
    groups = np.concatenate([np.zeros(50, int), np.repeat(np.arange(1, 6), 10)])
    held_out = set()
    for seed in range(12):
        consortium = Consortium(federation=agreement(seed=seed), labs=(lab("a", 100, groups),))
        held_out.add(int((folds_of_labs(consortium, 5)[0] == 0).sum()))
    assert min(held_out) < 50


def test_predictions_are_of_specimens_that_were_held_out() -> None:
    outcome = experiment(lab("a"), lab("b"))
    assert all((fold >= 0).all() for fold in outcome.fold)
    assert all(np.isfinite(values).all() for values in outcome.predicted["federated"])
    assert [fold for fold, _ in outcome.rounds] == [0] * 4 + [1] * 4 + [2] * 4


def test_the_batched_engine_predicts_the_same() -> None:
    consortium = Consortium(federation=agreement(), labs=(lab("a"), lab("bb", 22)))
    grid, batched = (
        run_experiment(consortium, modes=("federated",), folds=3, engine=engine)
        for engine in ("inprocess", "batched")
    )
    for ours, theirs in zip(
        batched.predicted["federated"], grid.predicted["federated"], strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    assert result_record(batched, {})["engine"] == "batched"
    assert result_record(grid, {})["engine"] == "inprocess"


@pytest.mark.parametrize(
    "name", ["south[/x]", "[bold]north", "b$\\frac{$", "_hidden", "=cmd()", 'α,β"γ', "a\tb"]
)
def test_a_lab_may_be_named_anything(name: str, tmp_path: Path) -> None:
    outcome = experiment(lab(name), lab("plain"))
    printed = io.StringIO()
    print_summary(outcome, Console(file=printed, width=120))
    assert name.expandtabs(8).split()[0] in printed.getvalue()
    assert parity_png(outcome).startswith(b"\x89PNG")
    rows = list(csv.DictReader(io.StringIO(predictions_csv(outcome))))
    assert not any(row["lab"].startswith(("=", "+", "-", "@")) for row in rows)
    write_run(outcome, result_record(outcome, {}), tmp_path / "run")
    assert (tmp_path / "run" / "result.json").is_file()
    assert load_release(tmp_path / "run" / "model").intervals is not None


def test_who_solves_ridge_regression_together_is_compared_with_who_solves_it_alone() -> None:
    data = agreement().model_dump() | {"head": {"hidden": ()}}
    data["training"] |= {"strategy": "ridge", "rounds": 1}
    labs = lab("a", 40), lab("bb", 30, 100 + np.arange(30))
    federation = Federation.model_validate(data)
    found = run_experiment(
        Consortium(federation=federation, labs=labs), modes=("federated", "centralized", "local")
    )
    for ours, pooled in zip(
        found.predicted["federated"], found.predicted["centralized"], strict=True
    ):
        np.testing.assert_allclose(ours, pooled, rtol=1e-4)
    for index, alone in enumerate(labs):
        consortium = Consortium(federation=federation, labs=(alone,))
        by_itself = run_experiment(consortium, modes=("federated",)).predicted["federated"][0]
        np.testing.assert_allclose(found.predicted["local"][index], by_itself, rtol=1e-4)
    # it is the shared model, and has no line of its own to beat
    rows = simulation_report(found, MODE_LABELS, "").evidence.modes
    assert len(rows) == 3 and not any(row.is_line for row in rows)


def test_a_simulation_leaves_the_model_of_its_first_fold(tmp_path: Path) -> None:
    outcome = experiment(lab("a"), lab("bb"), lab("ccc"))
    write_run(outcome, result_record(outcome, {}), tmp_path)
    found = load_release(tmp_path / "model")
    first = outcome.evidence.models[0]
    assert all((found.model.head[name] == array).all() for name, array in first.head.items())
    # five of each lab, and none is too few to be told of where nobody hides anything
    errors = simulated_release(outcome).provenance.errors
    assert errors is not None and errors.count.tolist() == [15.0]
    in_fold = [fold == 0 for fold in outcome.fold]
    by_hand = [
        np.abs(lab.targets - predicted)[rows]
        for lab, predicted, rows in zip(
            outcome.consortium.labs, outcome.predicted["federated"], in_fold, strict=True
        )
    ]
    assert errors.absolute[0] == pytest.approx(np.concatenate(by_hand).sum(), rel=1e-9)
    assert found.intervals is not None and np.isfinite(found.intervals.quantile).all()
    assert found.novelty is not None


def test_a_head_that_explodes_costs_a_simulation_its_model_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = experiment(lab("a"), lab("bb"))
    result = outcome.evidence.results[0]
    huge = {name: np.full_like(array, 3e38) for name, array in result.head.items()}
    record = result_record(outcome, {})
    outcome.evidence.results[0] = replace(result, head=huge)
    write_run(outcome, record, tmp_path)
    assert (tmp_path / "result.json").is_file() and not (tmp_path / "model").exists()
    assert "no model of this run" in caplog.text


def test_a_simulation_without_a_federated_run_leaves_no_model(tmp_path: Path) -> None:
    consortium = Consortium(federation=agreement(), labs=(lab("a"), lab("bb")))
    outcome = run_experiment(consortium, modes=("local",))
    write_run(outcome, result_record(outcome, {}), tmp_path)
    assert not (tmp_path / "model").exists()


def test_labs_keep_their_names_in_a_plain_terminal() -> None:
    printed = io.StringIO()
    print_summary(experiment(lab("aircraft-lab"), lab("b")), Console(file=printed, width=80))
    table = printed.getvalue().split("mean absolute error of each lab")[1]
    assert "aircraft-lab" in table and "tests" in table
    assert all(len(line) <= 80 for line in printed.getvalue().splitlines())


def test_a_gain_that_may_be_nothing_leaves_room_for_all_columns() -> None:
    unsure = Gain(
        lab="aircraft_maker", target="modulus", unit="GPa", num_specimens=150, num_groups=150,
        num_trained=36, alone=0.241, together=0.19, joined=0.184, low=-0.000691, high=0.1239,
    )  # fmt: skip
    clear = replace(unsure, low=0.0294, more_specimens=np.inf)
    small = replace(unsure, alone=0.0958, joined=0.0741, low=-0.0179, high=0.0656)
    printed = io.StringIO()
    Console(file=printed, width=80).print(labs_table([unsure, clear, small]))
    text = printed.getvalue()
    assert "+0.057, -0.001 to 0.124  no difference" in text
    assert "+0.022, -0.018 to 0.066  no difference" in text
    heading = next(line for line in text.splitlines() if "joining" in line)
    assert heading.rstrip().endswith("tests") and "> 360" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_training_that_diverges_says_so() -> None:
    with pytest.raises(DivergedError, match="choose a smaller training"):
        consortium = Consortium(
            federation=agreement(learning_rate=1e30, optimizer="sgd"), labs=(lab("a"), lab("b"))
        )
        run_experiment(consortium, modes=("local",))


def test_few_specimens_give_no_verdict() -> None:
    outcome = experiment(lab("a", 4), lab("b", 40))
    assert {gain.lab: gain.verdict for gain in gains(outcome)}["a"] == TOO_FEW


def test_specimens_of_one_batch_count_once_in_a_verdict() -> None:
    batches = np.repeat(np.arange(6), 4)
    outcome = experiment(lab("a", 24, batches), lab("b", 24))
    by_lab = {gain.lab: gain for gain in gains(outcome)}
    assert (by_lab["a"].num_groups, by_lab["b"].num_groups) == (6, 24)


def test_a_verdict_by_hand() -> None:
    outcome = experiment(lab("a", 6), lab("b", 6))
    for index in range(2):
        truth = outcome.consortium.labs[index].targets
        outcome.predicted["federated"][index][:] = truth + 1.0
        outcome.evidence.versions["personalised"][index][:] = truth + 1.0
        outcome.predicted["local"][index][:] = truth + np.array([[2.0], [4.0]] * 3)
    gain = gains(outcome)[0]
    # the four specimens of the other folds are too few to choose on, all six are enough
    assert gain.use == OFFSET
    assert gain.together == pytest.approx(1.0)
    assert gain.joined == pytest.approx(1.0)
    assert gain.mean == pytest.approx(3.0 - gain.joined)
    assert gain.verdict == JOIN
    # a mean of six differences that are 1 or 3 beyond the same constant
    assert gain.mean - 1 <= gain.low < gain.mean < gain.high <= gain.mean + 1


def test_who_stays_alone_better_is_told_to_hold() -> None:
    outcome = experiment(lab("a", 9), lab("b", 9))
    for index in range(2):
        truth = outcome.consortium.labs[index].targets
        wrong = truth + np.array([[5.0], [-5.0], [6.0]] * 3)
        outcome.predicted["federated"][index][:] = wrong
        outcome.evidence.versions["personalised"][index][:] = wrong
        outcome.predicted["local"][index][:] = truth + 1.0
    assert {gain.verdict for gain in gains(outcome)} == {HOLD}
    assert all(gain.more_specimens is None for gain in gains(outcome))


def test_the_lists_of_modes_agree() -> None:
    assert tuple(MODES) == MODE_NAMES == tuple(MODE_LABELS)
    assert set(TITLES) == set(MODES)


def test_a_target_that_nobody_may_share_is_predicted_by_nobody_together() -> None:
    labs = [lab("a"), lab("b", groups=np.arange(100, 115))]
    for part in labs:
        part.targets[2:] = np.nan
    consortium = Consortium(federation=agreement(), labs=tuple(labs))
    outcome = run_experiment(consortium, modes=("federated", "centralized"), folds=3)
    assert outcome.metrics("federated")["strength"]["num_specimens"] == 0
    assert outcome.metrics("centralized")["strength"]["num_specimens"] > 0


def test_a_version_is_chosen_on_other_specimens_than_it_is_tried_on() -> None:
    block = np.arange(20) % 2
    measured = np.zeros(20)
    shared = np.where(np.arange(20) % 4 < 2, 2.0, -2.0)
    # better in both blocks
    choice = choose(measured, {SHARED: shared, PERSONALISED: shared / 2}, block)
    assert choice.version == PERSONALISED
    np.testing.assert_array_equal(choice.predicted, shared / 2)
    # better in the first block alone: taken for the second, where it is worse
    lucky = np.where(block == 0, shared / 2, 3 * shared)
    choice = choose(measured, {SHARED: shared, PERSONALISED: lucky}, block)
    np.testing.assert_array_equal(choice.predicted[block == 1], lucky[block == 1])
    np.testing.assert_array_equal(choice.predicted[block == 0], shared[block == 0])
    assert choice.version == SHARED


def test_what_labs_models_are_worth_elsewhere() -> None:
    outcome = experiment(lab("a"), lab("bb"), lab("ccc"))
    matrix = cross_errors(outcome, 0)
    assert matrix.shape == (4, 3) and np.isfinite(matrix).all()
    measured = outcome.consortium.labs[1].targets
    own = np.abs(outcome.predicted["local"][1] - measured).mean()
    assert matrix[1, 1] == pytest.approx(own)
    shared = np.abs(outcome.predicted["federated"][1] - measured).mean()
    assert matrix[3, 1] == pytest.approx(shared)
    assert [row.num_specimens for row in left_out(outcome)] == [15, 15, 15]
    apart = feature_distances(outcome)
    assert apart is not None and apart[0] == ["a", "bb", "ccc"]
    assert (np.diag(apart[1]) < 1e-6).all()


def test_the_report_of_a_simulation_says_what_was_found(tmp_path: Path) -> None:
    outcome = experiment(lab("a"), lab("bb"), lab("ccc"))
    report = simulation_report(outcome, MODE_LABELS, "Nobody knows.")
    evidence = report.evidence
    assert [row.lab for row in evidence.labs] == ["a", "bb", "ccc"]
    assert [round(row.gain or 0, 9) for row in evidence.labs] == [
        round(gain.mean, 9) for gain in gains(outcome)
    ]
    overall = [row for row in evidence.calibration if row.lab is None]
    assert {row.num_specimens for row in overall} == {45}
    assert {matrix.values.shape for matrix in evidence.matrices} == {(4, 3), (3, 3)}
    assert sum(len(series.measured) for series in report.parity) == 2 * 45
    write_run(outcome, result_record(outcome, {}), tmp_path)
    assert "ccc" in (tmp_path / "report.html").read_text()
