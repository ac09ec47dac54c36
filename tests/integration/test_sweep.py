"""What a sweep chooses, what it may see, and what a kill or a death costs, on small arrays."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

from client.specimens import Specimens
from common.configuration import parse
from common.errors import ConfigurationError, StateError
from common.federation import Federation, load_federation
from simulation.consortium import Consortium
from simulation.experiment import run_experiment
from simulation.scenarios.scenario import Scenario
from simulation.sweep.checking import space_of
from simulation.sweep.nested import Swept, num_steps, run_sweep
from simulation.sweep.outcome import CHOSEN, OWN, Setting
from simulation.sweep.page import sweep_page
from simulation.sweep.plan import plans_of
from simulation.sweep.preparing import Preparer
from simulation.sweep.report import _worth_table, sweep_record, trials_csv, write_sweep
from simulation.sweep.settings import Sweep
from simulation.sweep.storage import STUDY, Storage
from simulation.sweep.trial import HELD_OUT, TRAINED_ON, Job
from simulation.sweep.worth import Worth

RATES = {"low": 1e-4, "high": 1e-1, "log": True}
SEARCH = {"training.learning_rate": RATES, "head.hidden": {"choices": [[], [4]]}}


def agreement(**training: Any) -> Federation:
    return Federation.model_validate(
        {
            "name": "test",
            "targets": {
                "strength": {"unit": "MPa", "range": [0, 200]},
                "modulus": {"unit": "GPa", "range": [0, 50]},
            },
            "imaging": {"scale": "fit"},
            "backbone": {"name": "resnet18"},
            "head": {"hidden": [4]},
            "training": {"rounds": 3, "learning_rate": 0.01} | training,
            "privacy": {"min_specimens": 15},
        }
    )


def lab(name: str, size: int = 15) -> Specimens:
    generator = np.random.default_rng(len(name) + size)
    features = generator.gamma(2.0, 0.2, (size, 512)).astype(np.float32)
    strength = 80 + 10 * features[:, :3].sum(axis=1).astype(np.float64)
    return Specimens(
        lab=name,
        ids=tuple(f"{name}{index}" for index in range(size)),
        features=features,
        targets=np.stack([strength, 10 + features[:, 5].astype(np.float64)], axis=1),
        groups=np.arange(size) + 1000 * len(name),
    )


LABS = (lab("a"), lab("bb", 18))


def setting_of(
    folder: Path,
    labs: tuple[Specimens, ...] = LABS,
    federation: Federation | None = None,
    opened: Callable[[Federation], Consortium] | None = None,
    scenario: Scenario | None = None,
    **sweep: Any,
) -> Setting:
    own = federation or agreement()
    asked = parse(Sweep, {"search": SEARCH, "trials": 4} | sweep, "sweep.toml")
    folder.mkdir(exist_ok=True)
    opener = opened or (lambda changed: Consortium(federation=changed, labs=labs))
    return Setting(
        sweep=asked,
        space=space_of(asked, own, folder, "sweep.toml"),
        preparer=Preparer(opener, folder, own, scenario),
        storage=Storage(folder, {"sweep file": asked.digest()}),
        engine="inprocess",
        scenario=scenario,
    )


def swept_in(folder: Path, *labs: Specimens, **options: Any) -> Swept:
    setting = setting_of(folder, labs or LABS, **options)
    try:
        return run_sweep(setting)
    finally:
        setting.storage.close()


def tried(swept: Swept) -> list[list[Any]]:
    """What trials set and scored, without what follows from the clock."""
    return [
        [[trial.state, trial.params, trial.value, trial.user_attrs.get("rmse")]
         for trial in study.trials]
        for study in swept.studies
    ]  # fmt: skip


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    return swept_in(tmp_path_factory.mktemp("swept"))


def test_held_out_specimens_change_no_trial_and_no_choice(swept: Swept, tmp_path: Path) -> None:
    outer = swept.deciding.plan.outer
    assert outer is not None
    spoilt = []
    for specimens, role in zip(LABS, outer, strict=True):
        targets, features = specimens.targets.copy(), specimens.features.copy()
        targets[role == HELD_OUT] = 1.0
        features[role == HELD_OUT] = 9.0
        spoilt.append(replace(specimens, targets=targets, features=features))
    other = swept_in(tmp_path / "run", *spoilt)
    assert tried(other) == tried(swept)
    assert other.deciding.federation == swept.deciding.federation
    # what was corrupted is what the choice is judged by
    assert other.errors(CHOSEN).metrics(0) != swept.errors(CHOSEN).metrics(0)


def test_every_specimen_of_a_study_is_held_out_once_and_no_other_is_seen() -> None:
    sweep = parse(Sweep, {"search": SEARCH, "folds": 3, "inner_folds": 2}, "sweep.toml")
    plans = plans_of(Consortium(federation=agreement(), labs=LABS), sweep)
    assert [plan.name for plan in plans] == ["fold 1", "fold 2", "fold 3", "choice"]
    tested = []
    for plan in plans:
        for index in range(len(LABS)):
            roles = np.stack([run[index] for run in plan.inner])
            seen = roles.any(axis=0)
            assert ((roles == HELD_OUT).sum(axis=0) == seen).all()
            assert ((roles == TRAINED_ON).sum(axis=0) == seen).all()
            if plan.outer is not None:
                np.testing.assert_array_equal(plan.outer[index] == TRAINED_ON, seen)
                tested.append((index, np.flatnonzero(~seen)))
            else:
                assert seen.all()
    for index, specimens in enumerate(LABS):
        rows = np.concatenate([rows for lab_, rows in tested if lab_ == index])
        assert sorted(rows.tolist()) == list(range(len(specimens)))


def test_the_own_settings_are_judged_as_a_simulation_judges_them(swept: Swept) -> None:
    consortium = Consortium(federation=agreement(), labs=LABS)
    outcome = run_experiment(consortium, modes=("federated",))
    for ours, theirs in zip(swept.predicted(OWN), outcome.predicted["federated"], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # they are the first trial, so that nothing worse on the inner folds is ever chosen
    first = swept.deciding.trials[0]
    assert first.params == {"training.learning_rate": 0.01, "head.hidden": "[4]"}
    assert swept.deciding.chosen.value is not None and first.value is not None
    assert swept.deciding.chosen.value <= first.value


def test_what_befalls_labs_in_a_simulation_befalls_them_in_trials(tmp_path: Path) -> None:
    scenario = parse(
        Scenario,
        {"label_noise": {"bb": 2.0}, "away": {"a": [2]}, "seed": 5},
        "federation.toml: [simulation]",
    )
    federation = agreement(quorum=0.5)
    found = swept_in(tmp_path / "run", federation=federation, scenario=scenario, trials=2)
    consortium = Consortium(federation=federation, labs=LABS)
    outcome = run_experiment(consortium, modes=("federated",), scenario=scenario)
    assert {event.kind for event in outcome.diary.events} == {"label noise", "away"}
    for ours, theirs in zip(found.predicted(OWN), outcome.predicted["federated"], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    plain = run_experiment(consortium, modes=("federated",))
    assert (plain.predicted["federated"][0] != outcome.predicted["federated"][0]).any()


def test_a_sweep_by_hand(swept: Swept) -> None:
    trial, plan = swept.deciding.chosen, swept.deciding.plan
    job = Job(
        federation=swept.deciding.federation,
        prepared=swept.setting.preparer.prepared(swept.deciding.federation),
        runs=plan.inner,
        engine="inprocess",
    )
    predicted = np.concatenate(job.run())
    measured = np.concatenate([specimens.targets for specimens in LABS])
    seen = np.concatenate([np.isfinite(predicted[:, 0])])
    error = np.sqrt(((predicted - measured)[seen] ** 2).mean(axis=0))
    assert trial.user_attrs["rmse"] == pytest.approx(error.tolist())
    assert trial.value == pytest.approx((error / measured[seen].std(axis=0)).mean())


def test_what_is_left_behind(swept: Swept, tmp_path: Path) -> None:
    write_sweep(swept, tmp_path)
    assert load_federation(tmp_path) == swept.deciding.federation
    record = json.loads((tmp_path / "sweep.json").read_text())
    assert record == sweep_record(swept)
    assert [trial["trial"] for trial in record["studies"][0]["trials"]] == [0, 1, 2, 3]
    chosen = swept.deciding.federation
    assert record["chosen"] == {
        "training.learning_rate": chosen.training.learning_rate,
        "head.hidden": list(chosen.head.hidden),
    }
    assert len(trials_csv(swept).splitlines()) == 5
    page = (tmp_path / "report.html").read_text()
    for words in ("Report of a sweep", "What was chosen", "What accuracy costs", "own, outer"):
        assert words in page
    assert num_steps(swept.setting.sweep, swept.setting.space) == (4, 1)


def test_a_table_names_its_targets_whole_in_eighty_columns() -> None:
    figures = {"num_specimens": 1234, "mae": 123.0, "r2": 0.912}
    one = Worth(
        target="tensile_strength", unit="MPa", own=figures, chosen=figures, low=0.1, high=0.2
    )
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as capture:
        console.print(_worth_table([one]))
    assert "tensile_strength (MPa)" in capture.get() and "…" not in capture.get()


def test_a_choice_for_each_fold_and_one_over_all(tmp_path: Path) -> None:
    grid = {"head.hidden": {"choices": [[], [4]]}, "training.rounds": {"choices": [1, 3]}}
    found = swept_in(
        tmp_path / "run", search=grid, sampler="grid", trials=None, folds=2, inner_folds=2
    )
    assert [study.plan.name for study in found.studies] == ["fold 1", "fold 2", "choice"]
    assert all(len(study.trials) == 4 for study in found.studies)
    assert [len(study.tested) for study in found.studies] == [2, 2, 0]
    assert found.errors(CHOSEN).metrics(0)["num_specimens"] == 33
    sent = [trial.user_attrs["bytes"] for trial in found.deciding.trials]
    assert sent[0] == 1 * 2 * 2 * 4 * (512 * 2 + 2)
    assert sent[1] == 3 * sent[0]
    page = sweep_page(found)
    assert "accuracy against rounds" in page and "accuracy against weights sent" in page


def test_one_target_alone_is_minimised_in_its_unit(tmp_path: Path) -> None:
    found = swept_in(tmp_path / "run", target="modulus", trials=2)
    for trial in found.deciding.trials:
        assert trial.value == trial.user_attrs["rmse"][1]


def test_settings_that_cannot_be_trained_cost_their_trial(tmp_path: Path) -> None:
    search = {"training.learning_rate": {"choices": [0.01, 1e6]}}
    found = swept_in(tmp_path / "run", search=search, sampler="grid", trials=None)
    good, bad = found.deciding.trials
    assert (good.state, bad.state) == (TrialState.COMPLETE, TrialState.PRUNED)
    assert "0 of 2 labs took part" in bad.user_attrs["why"]
    assert "cannot be trained" in trials_csv(found)


def test_a_sweep_in_which_nothing_can_be_trained_says_why(tmp_path: Path) -> None:
    search = {"training.learning_rate": {"choices": [1e6]}}
    with pytest.raises(ConfigurationError, match=r"none of 1 trials could be scored; .* quorum"):
        swept_in(tmp_path / "run", search=search, sampler="grid", trials=None, processes=1)


def test_equal_settings_are_trained_once(tmp_path: Path) -> None:
    search = {
        "training.strategy": {"choices": ["ridge", "fedavg"]},
        "training.rounds": {"low": 1, "high": 2},
    }
    found = swept_in(tmp_path / "run", search=search, trials=8, sampler="random")
    by_fingerprint: dict[str, Any] = {}
    for trial in found.deciding.trials:
        known = by_fingerprint.setdefault(trial.user_attrs["fingerprint"], trial)
        assert trial.value == known.value
        assert ("same_as" in trial.user_attrs) == (trial is not known)
    assert 1 < len(by_fingerprint) < 8


def test_a_sweep_goes_on_where_it_was_stopped(swept: Swept, tmp_path: Path) -> None:
    setting = setting_of(tmp_path / "run")

    def stop_after_two() -> None:
        if len(setting.storage.finished("choice")) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(setting, on_trial=stop_after_two)
    setting.storage.close()
    again = swept_in(tmp_path / "run")
    assert tried(again) == tried(swept)
    # and once more, when nothing is left to do
    assert tried(swept_in(tmp_path / "run")) == tried(swept)


def test_a_run_of_something_else_is_refused(swept: Swept, tmp_path: Path) -> None:
    swept_in(tmp_path / "run", trials=2)
    with pytest.raises(StateError, match="was begun with another sweep file; put back"):
        setting_of(tmp_path / "run", trials=3)


def test_a_study_that_a_kill_left_without_a_word_is_begun_anew(tmp_path: Path) -> None:
    Storage(tmp_path, {"sweep file": "ab"}).close()
    url = f"sqlite:///{tmp_path / STUDY}"
    optuna.create_study(storage=url, study_name="choice")
    storage = Storage(tmp_path, {"sweep file": "ab"})
    assert storage.finished("choice") == []
    storage.close()


def test_a_longer_deadline_is_no_other_sweep() -> None:
    short, long = (
        parse(Sweep, {"search": SEARCH, "trial_deadline": value}, "sweep.toml")
        for value in ("1 s", "1 h")
    )
    assert short.digest() == long.digest()


@pytest.mark.parametrize("choices", [[["fedavg"], "median"], [{"a": 1}]])
def test_choices_that_are_no_names_are_one_sentence(choices: list[Any], tmp_path: Path) -> None:
    sweep = parse(Sweep, {"search": {"training.strategy": {"choices": choices}}}, "sweep.toml")
    with pytest.raises(ConfigurationError, match=r"training\.strategy"):
        space_of(sweep, agreement(), tmp_path, "sweep.toml")


def test_a_file_that_is_no_study_is_said(tmp_path: Path) -> None:
    (tmp_path / STUDY).write_text("not a database, but long enough to be looked at")
    with pytest.raises(StateError, match=r"study\.db cannot be used: file is not a database"):
        setting_of(tmp_path)


def test_a_trial_that_something_befell_costs_no_other(swept: Swept, tmp_path: Path) -> None:
    setting = setting_of(tmp_path / "run", processes=1)
    features = tmp_path / "run" / "features-0.npy"
    away = features.with_suffix(".away")
    moves = iter([(features, away), (away, features)])

    def move() -> None:
        for before, after in [next(moves, (None, None))]:
            if before is not None and after is not None:
                before.rename(after)

    found = run_sweep(setting, on_trial=move)
    setting.storage.close()
    first, befallen, *others = found.deciding.trials
    assert befallen.state is TrialState.FAIL
    assert "FileNotFoundError" in befallen.user_attrs["why"]
    assert {trial.state for trial in (first, *others)} == {TrialState.COMPLETE}


def test_features_of_other_settings_are_made_once_and_of_the_same_specimens(
    tmp_path: Path,
) -> None:
    made = []

    def opened(federation: Federation) -> Consortium:
        made.append(federation.imaging.tile_px)
        labs = (
            LABS
            if federation.imaging.tile_px < 300
            else (LABS[0], LABS[1].take(LABS[1].groups > 2003))
        )
        return Consortium(federation=federation, labs=labs)

    search = {
        "imaging.tile_px": {"choices": [128, 256, 512]},
        "training.rounds": {"choices": [1, 2]},
    }
    found = swept_in(
        tmp_path / "run", opened=opened, search=search, sampler="grid", trials=None, processes=1
    )
    assert made == [224, 128, 256, 512, 512]
    refused = found.deciding.trials[4:]
    assert all(trial.state is TrialState.PRUNED for trial in refused)
    assert "trials are compared on the same" in refused[0].user_attrs["why"]


SCRIPT = """
import sys
from pathlib import Path
from tests.integration.test_sweep import setting_of
from simulation.sweep.nested import run_sweep
if __name__ == "__main__":
    run_sweep(setting_of(Path(sys.argv[1])), on_trial=lambda: print("trial", flush=True))
"""


def test_a_killed_sweep_goes_on_to_the_same_choice(swept: Swept, tmp_path: Path) -> None:
    script = tmp_path / "sweep_once.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, script, tmp_path / "run"],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(root)},
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        for _ in range(2):
            assert process.stdout.readline() == b"trial\n"
        process.send_signal(signal.SIGKILL)
    again = swept_in(tmp_path / "run")
    assert tried(again) == tried(swept)
    assert again.deciding.federation == swept.deciding.federation
