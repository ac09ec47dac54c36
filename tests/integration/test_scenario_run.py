"""What befalls labs in a run: the same on both engines, and recorded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.lab import Lab, split_lab
from client.specimens import Specimens
from common.configuration import parse
from common.errors import QuorumError
from common.federation import Federation, load_federation
from common.head import HeadArrays
from server.rounds import RunOptions
from server.state import RunResult
from simulation.consortium import Consortium
from simulation.engine import make_grid
from simulation.experiment import Outcome, run_experiment
from simulation.report import result_record, write_run
from simulation.scenarios.events import Diary, Event
from simulation.scenarios.label_faults import written_targets
from simulation.scenarios.scenario import Scenario, load_scenario
from simulation.scenarios.scripted import Scripted, run_scripted

SIZES = {"aachen": 20, "bremen": 15, "celle": 25, "dresden": 30, "essen": 20}


def agreement(**training: Any) -> Federation:
    return Federation.model_validate(
        {
            "name": "test",
            "targets": {"strength": {"unit": "MPa", "range": [0, 200]}},
            "imaging": {"scale": "fit"},
            "backbone": {"name": "resnet18"},
            "head": {"hidden": [4]},
            "training": {"rounds": 4, "learning_rate": 0.01, "quorum": 0.6} | training,
            "privacy": {"min_specimens": 3},
        }
    )


def specimens(name: str, number: int) -> Specimens:
    size = SIZES[name]
    generator = np.random.default_rng(size + number)
    features = generator.gamma(2.0, 0.2, (size, 512)).astype(np.float32)
    return Specimens(
        lab=name,
        ids=tuple(f"{name}-{row}" for row in range(size)),
        features=features,
        targets=80 + 10 * features[:, :3].sum(axis=1, keepdims=True).astype(np.float64),
        groups=np.arange(100 * number, 100 * number + size),
    )


def consortium(**training: Any) -> Consortium:
    labs = tuple(specimens(name, number) for number, name in enumerate(SIZES))
    return Consortium(federation=agreement(**training), labs=labs)


def scenario(**table: Any) -> Scenario:
    return parse(Scenario, table, "[simulation]")


def simulated(table: dict[str, Any], engine: str = "inprocess", **training: Any) -> Outcome:
    return run_experiment(
        consortium(**training), modes=("federated",), engine=engine, scenario=scenario(**table)
    )


def events(outcome: Outcome, kind: str) -> list[Event]:
    return [event for event in outcome.diary.events if event.kind == kind]


ALL_AT_ONCE = {
    "dropout": {"every": 0.2, "essen": 0.0},
    "leave": {"aachen": 4},
    "seconds_per_specimen": 1.0,
    "speed_spread": 0.2,
    "slow": {"essen": 40.0},
    "label_noise": 0.1,
    "hostile": {
        "bremen": {"attack": "no_numbers", "from_round": 2},
        "celle": {"attack": "free_rider"},
    },
}


def test_both_engines_tell_the_same_story() -> None:
    slow: dict[str, Any] = {"round_deadline": "5 min", "quorum": 0.4}
    one, two = (simulated(ALL_AT_ONCE, engine, **slow) for engine in ("inprocess", "batched"))
    assert one.diary == two.diary
    assert [record.labs for _, record in one.rounds] == [record.labs for _, record in two.rounds]
    for ours, theirs in zip(one.predicted["federated"], two.predicted["federated"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    kinds = {event.kind for event in one.diary.events}
    assert kinds >= {
        "label noise",
        "dropped out",
        "late",
        "left for good",
        "no numbers",
        "free rider",
    }
    assert simulated(ALL_AT_ONCE, **slow).diary == one.diary
    assert simulated(ALL_AT_ONCE | {"seed": 1}, **slow).diary != one.diary


def test_without_anything_set_it_changes_nothing() -> None:
    plain = run_experiment(consortium(), modes=("federated",))
    outcome = simulated({})
    for ours, theirs in zip(
        outcome.predicted["federated"], plain.predicted["federated"], strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert outcome.diary == Diary()
    assert "scenario" in result_record(outcome, {})
    assert "scenario" not in result_record(plain, {})


def test_who_is_away_is_named_and_comes_back() -> None:
    outcome = simulated({"away": {"bremen": [2, 3]}})
    took_part = ["bremen" in record.labs for _, record in outcome.rounds]
    assert took_part == [True, False, False, True]
    assert outcome.rounds[1][1].failed == {"bremen": "not connected"}
    assert [(event.server_round, event.lab) for event in events(outcome, "away")] == [
        (2, "bremen"),
        (3, "bremen"),
    ]


def test_who_has_left_is_missing_in_the_evaluation_too() -> None:
    outcome = simulated({"leave": {"celle": 3}})
    assert ["celle" in record.labs for _, record in outcome.rounds] == [True, True, False, False]
    assert len(events(outcome, "left for good")) == 1
    products = outcome.evidence.products[0]
    assert set(products.of_labs) == set(SIZES) - {"celle"}
    assert outcome.metrics("federated")["strength"]["num_specimens"] == 22


def test_virtual_time_by_hand() -> None:
    table = {"seconds_per_specimen": 2.0, "slow": {"bremen": 3.0}}
    outcome = simulated(table, rounds=2)
    # four fifths of the specimens, two epochs: dresden 24, bremen 12 three times as slow
    assert [time.seconds for time in outcome.diary.times] == [12 * 2 * 2.0 * 3] * 2
    assert [time.clock for time in outcome.diary.times] == [144.0, 288.0]
    assert outcome.diary.events == []


def test_a_straggler_is_left_out_and_the_round_lasts_to_the_deadline() -> None:
    table = {"seconds_per_specimen": 2.0, "slow": {"bremen": 3.0}}
    outcome = simulated(table, rounds=2, round_deadline="100 s")
    assert all("bremen" not in record.labs for _, record in outcome.rounds)
    assert outcome.rounds[0][1].failed == {"bremen": "no reply in time"}
    assert [time.seconds for time in outcome.diary.times] == [100.0] * 2
    assert [event.lab for event in events(outcome, "late")] == ["bremen"] * 2


def test_a_lab_that_sends_no_numbers_is_put_out_by_name() -> None:
    outcome = simulated({"hostile": {"bremen": {"attack": "no_numbers", "from_round": 2}}})
    assert outcome.excluded == {"bremen": "0.weight: holds NaN or infinity"}
    (put_out,) = events(outcome, "put out")
    assert (put_out.lab, put_out.server_round) == ("bremen", 2)
    assert len(events(outcome, "no numbers")) == 1
    # a fifth of the 110 specimens is predicted, bremen's own too
    assert outcome.metrics("federated")["strength"]["num_specimens"] == 22


def test_a_round_below_the_quorum_is_tried_again_without_waiting() -> None:
    outcome = simulated({"dropout": 0.5}, rounds=6)
    tried = events(outcome, "below the quorum")
    assert tried and "tried again; round" in tried[0].words
    assert [record.server_round for _, record in outcome.rounds] == [1, 2, 3, 4, 5, 6]
    assert all(len(record.labs) >= 3 for _, record in outcome.rounds)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({"dropout": {"aachen": 0.999999, "bremen": 0.999999, "celle": 0.999999}}, "not connected"),
        (
            {
                "seconds_per_specimen": 1.0,
                "slow": {"aachen": 1e4, "bremen": 1e4, "celle": 1e4},
            },
            "no reply in time",
        ),
    ],
)
def test_a_run_that_stays_below_its_quorum_names_who_was_missing(
    table: dict[str, Any], reason: str
) -> None:
    with pytest.raises(QuorumError, match=rf"round 1: 2 of 5 .* aachen \({reason}\)"):
        simulated(table)


def run_once(table: dict[str, Any]) -> HeadArrays:
    """Return the head after one round of bremen alone."""
    federation = agreement(rounds=1, quorum=0.01)
    part = specimens("bremen", 1)
    lab = split_lab(part, federation, np.arange(len(part)) % 5 == 0)
    return result_of([lab], table).head


def result_of(labs: list[Lab], table: dict[str, Any]) -> RunResult:
    grid = make_grid("inprocess", {lab.name: lab for lab in labs})
    scripted = Scripted(scenario=scenario(**table), diary=Diary(), fold=0)
    return run_scripted(grid, labs, scripted, RunOptions())


def test_what_hostile_labs_send_by_hand() -> None:
    honest = run_once({})
    sent = run_once({"hostile": {"bremen": {"attack": "free_rider"}}})
    flipped = run_once({"hostile": {"bremen": {"attack": "sign_flip"}}})
    scaled = run_once({"hostile": {"bremen": {"attack": "scaled", "factor": 3.0}}})
    for name, before in sent.items():
        step = honest[name] - before
        np.testing.assert_allclose(flipped[name] - before, -step, atol=1e-6)
        np.testing.assert_allclose(scaled[name] - before, 3 * step, atol=1e-6)
    assert any(np.abs(honest[name] - before).max() > 1e-3 for name, before in sent.items())


def test_faults_of_labels_are_in_training_alone() -> None:
    table = {
        "label_noise": {"aachen": 0.5},
        "unit_mistake": {"bremen": {"target": "strength", "unit": "ksi"}},
        "hostile": {"celle": {"attack": "label_scale", "factor": 1.5}},
    }
    made = consortium()
    aachen, bremen, celle, dresden, _ = written_targets(made, scenario(**table))
    true = [lab.targets for lab in made.labs]
    spread = np.concatenate(true).std()
    assert 0.2 * spread < (aachen - true[0]).std() < 0.9 * spread
    np.testing.assert_allclose(bremen, true[1] / 6.894757, rtol=1e-6)
    np.testing.assert_allclose(celle, 1.5 * true[2])
    np.testing.assert_array_equal(dresden, true[3])

    outcome = run_experiment(made, modes=("local",), scenario=scenario(**table))
    # what bremen predicts of itself is in the unit that it mistakes for MPa
    predicted, fold = outcome.predicted["local"][1], outcome.fold[1]
    assert float(predicted[fold == 0].mean()) < 20 < float(true[1].mean())
    assert [event.kind for event in outcome.diary.events] == [
        "label noise",
        "unit mistake",
        "label scale",
    ]


def test_values_out_of_range_are_told_and_stopped_by_the_real_screen() -> None:
    outcome = simulated({"hostile": {"celle": {"attack": "label_scale", "factor": 10.0}}})
    assert outcome.excluded == {"celle": "targets: a mean lies outside the federation's range"}
    words = events(outcome, "label scale")[0].words
    assert "25 of 25 specimens lie outside the federation's range" in words


def test_labels_with_noise_stay_within_the_range() -> None:
    targets = written_targets(consortium(), scenario(label_noise=10.0))
    values = np.concatenate(targets)
    assert values.min() == 0.0 and values.max() == 200.0


def test_the_run_is_recorded_and_can_be_run_again(tmp_path: Path) -> None:
    table = {"dropout": 0.3, "seconds_per_specimen": 1.0, "label_noise": {"celle": 0.1}}
    outcome = run_experiment(
        consortium(), modes=("federated", "local"), folds=3, scenario=scenario(**table)
    )
    record = result_record(outcome, {})
    assert record["scenario"]["settings"]["dropout"] == {"every": 0.3}
    assert record["scenario"]["specimens"] == SIZES
    dropped = [event for event in record["events"] if event["kind"] == "dropped out"]
    assert {event["fold"] for event in dropped} == {0, 1, 2}
    assert set(dropped[0]) == {"kind", "lab", "fold", "server_round", "attempt"}
    write_run(outcome, record, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "What happened" in page and "dropped out" in page and "In virtual time" in page
    assert load_scenario(tmp_path) == scenario(**table)
    assert load_federation(tmp_path).fingerprint() == agreement().fingerprint()


def test_nobody_who_runs_without_a_scenario_reads_of_one(tmp_path: Path) -> None:
    outcome = run_experiment(consortium(), modes=("federated",))
    write_run(outcome, result_record(outcome, {}), tmp_path)
    assert "What happened" not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("projection", ["pca", "random"])
def test_a_projected_head_is_tampered_with_alike(projection: str) -> None:
    def head(table: dict[str, Any]) -> HeadArrays:
        data = agreement(rounds=1, quorum=0.01).model_dump()
        data["head"] |= {"projection": projection, "components": 8}
        federation = Federation.model_validate(data)
        part = specimens("bremen", 1)
        return result_of([split_lab(part, federation, np.arange(len(part)) % 5 == 0)], table).head

    honest, flipped = head({}), head({"hostile": {"bremen": {"attack": "sign_flip"}}})
    assert any(not np.allclose(honest[name], flipped[name]) for name in honest)
