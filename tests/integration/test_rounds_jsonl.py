"""``rounds.jsonl`` of runs: at a coordinator that is killed, and in a simulation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import client.app
from client import training
from client.app import client_app
from client.lab import Lab, split_lab
from client.specimens import Specimens
from common.federation import Federation
from common.round_log import FILE_NAME, TIMES, RoundLog
from server.checkpoint import Checkpoints
from server.logged_rounds import LoggedCheckpoints
from server.release import release_of
from server.rounds import RunOptions, run_federation
from server.state import Progress, RoundRecord, RunResult
from simulation.grid import InProcessGrid
from simulation.modes import federated

ROUNDS = 4
SAVES = ROUNDS + 4
"""Before the first round, after each, after the sums of products, the evaluation, the release."""

SIZES = {"aachen": 20, "bremen": 24, "celle": 16}

SECRET = "/home/anna/steel.csv: 612.5 MPa"


def agreement() -> Federation:
    return Federation.model_validate(
        {
            "name": "test",
            "targets": {"strength": {"unit": "MPa", "range": [0, 200]}},
            "imaging": {"scale": "fit"},
            "backbone": {"name": "resnet18"},
            "head": {"hidden": [4]},
            "training": {"rounds": ROUNDS, "strategy": "fedadam", "quorum": 0.5},
            "privacy": {"min_specimens": 3},
        }
    )


def make_labs() -> dict[str, Lab]:
    federation, labs = agreement(), {}
    for name, size in SIZES.items():
        generator = np.random.default_rng(size)
        made = Specimens(
            lab=name,
            ids=tuple(f"{name}-{row}" for row in range(size)),
            features=generator.gamma(2.0, 0.2, (size, federation.num_features)).astype(np.float32),
            targets=generator.uniform(50, 150, (size, 1)),
            groups=np.arange(size),
        )
        labs[name] = split_lab(made, federation, np.arange(size) % 4 == 0)
    return labs


class KilledError(Exception):
    """In place of SIGKILL, which tests of whole processes send."""


def coordinate(folder: Path) -> RunResult:
    labs = make_labs()
    app = client_app(lambda context: labs[str(context.node_config["lab"])])
    grid = InProcessGrid(app, {name: {"lab": name} for name in labs})
    keeper = LoggedCheckpoints(Checkpoints(folder, agreement().fingerprint()), folder)
    return run_federation(grid, agreement(), RunOptions(keeper=keeper))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every line of the file is JSON."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def but_for_times(folder: Path) -> list[dict[str, Any]]:
    lines = read_lines(folder / FILE_NAME)
    return [{key: line[key] for key in line if key not in TIMES} for line in lines]


def dying(real: Callable[..., None], at: int, *, after: bool) -> Callable[..., None]:
    calls = 0

    def call(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls < at or after:
            real(*arguments)
        if calls == at:
            raise KilledError

    return call


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", range(1, SAVES + 1))
def test_law_5_killed_at_a_checkpoint_and_resumed_it_says_what_it_would_have_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, after: bool
) -> None:
    undisturbed = release_of(agreement(), coordinate(tmp_path / "undisturbed"))
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", dying(Checkpoints.save, at, after=after))
        with pytest.raises(KilledError):
            coordinate(tmp_path / "killed")
    killed = release_of(agreement(), coordinate(tmp_path / "killed"))
    assert killed.files == undisturbed.files
    assert killed.provenance.labs == tuple(SIZES)
    curve, expected = (vars(release.provenance.training) for release in (killed, undisturbed))
    np.testing.assert_equal(curve, expected)
    assert np.isfinite(curve["train_loss"]).all()
    lines = but_for_times(tmp_path / "killed")
    assert lines == but_for_times(tmp_path / "undisturbed")
    assert [line["server_round"] for line in lines] == list(range(1, ROUNDS + 1))
    # none was written by the state alone
    assert all(line["seconds"] is not None for line in read_lines(tmp_path / "killed" / FILE_NAME))


@pytest.mark.parametrize("after", [False, True])
def test_law_5_killed_at_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    coordinate(tmp_path / "undisturbed")
    with monkeypatch.context() as patch:
        patch.setattr(RoundLog, "append", dying(RoundLog.append, 3, after=after))
        with pytest.raises(KilledError):
            coordinate(tmp_path / "killed")
    with (tmp_path / "killed" / FILE_NAME).open("a") as file:
        file.write('{"fold": null, "server_ro')
    coordinate(tmp_path / "killed")
    assert but_for_times(tmp_path / "killed") == but_for_times(tmp_path / "undisturbed")


def test_a_run_that_has_lost_the_file_has_it_again(tmp_path: Path) -> None:
    coordinate(tmp_path)
    before = but_for_times(tmp_path)
    (tmp_path / FILE_NAME).unlink()
    coordinate(tmp_path)
    assert but_for_times(tmp_path) == before


def test_of_a_lab_that_fails_a_code_stands_in_it_and_no_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = training.train_head

    def train_head(head: Any, features: Any, targets: Any, plan: Any) -> Any:
        if len(features) == SIZES["bremen"] * 3 // 4:
            raise RuntimeError(SECRET)
        return real(head, features, targets, plan)

    monkeypatch.setattr(client.app, "train_head", train_head)
    log = RoundLog(tmp_path / FILE_NAME)
    log.begin()

    def on_round(record: RoundRecord, seconds: float) -> None:
        assert seconds > 0
        log.append(record.line(fold=0, seconds=seconds))

    federated(list(make_labs().values()), on_round)
    lines = read_lines(tmp_path / FILE_NAME)
    assert [line["failed"] for line in lines] == [{"bremen": "internal"}] * ROUNDS
    assert [line["labs"] for line in lines] == [["aachen", "celle"]] * ROUNDS
    text = (tmp_path / FILE_NAME).read_text()
    assert SECRET not in text and "aachen-0" not in text
    assert SECRET in caplog.text
    assert json.loads(text.splitlines()[0])["fold"] == 0


def test_progress_is_what_the_checkpoints_hold(tmp_path: Path) -> None:
    coordinate(tmp_path)
    keeper = LoggedCheckpoints(Checkpoints(tmp_path, agreement().fingerprint()), tmp_path)
    found = keeper.load()
    assert isinstance(found, Progress) and found.phase == "finished"
