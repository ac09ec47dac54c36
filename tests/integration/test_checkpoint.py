"""States of a run on disk: equal when read, whole when a write is killed, found when damaged."""

import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import StateError
from common.gram import GramSums
from common.intervals import CalibrationSums
from common.metrics import ErrorSums
from common.standardise import Standardiser
from server.checkpoint import Checkpoints
from server.evidence import Evaluation, Products
from server.roster import Roster
from server.state import Progress, RoundRecord, RoundState


def progress(server_round: int) -> Progress:
    record = RoundRecord(
        server_round=server_round,
        train_loss=0.25,
        labs=("aachen",),
        failed={"celle": "not connected"},
        quarantined={},
    )
    ones = np.ones(2)
    errors = ErrorSums(
        count=ones, absolute=ones, squared=ones, measured=ones, measured_squared=ones
    )
    sums = GramSums.of(np.eye(2), np.ones((2, 1)))
    return Progress(
        phase="train",
        roster=Roster(
            names={2: "aachen"},
            buckets={2: 20},
            num_examples={2: 24},
            target_counts={2: np.array([24.0, 0.0])},
            named_in_card=["aachen"],
            excluded={"dresden": "reply"},
            accepted=[2, 3, 4],
        ),
        standardiser=Standardiser(
            feature_mean=ones,
            feature_scale=ones,
            feature_weight=ones,
            target_mean=ones,
            target_scale=ones,
        ),
        state=RoundState(
            server_round=server_round,
            head={
                "0.weight": np.full((3, 2), server_round, dtype=np.float32),
                "0.bias": np.zeros(3, dtype=np.float32),
            },
            optimizer={"m_t/0.weight": np.full((3, 2), 0.1)},
            history=(record,),
        ),
        products=Products(basis=np.eye(2), of_labs={"aachen": sums, "celle": sums}, variance=2.0),
        evaluation=Evaluation(
            errors={"aachen": errors},
            baseline={"aachen": errors},
            calibration={
                "aachen": CalibrationSums(counts=ones, spreads=2 * ones, novelty=3 * ones)
            },
        ),
        crossed={"aachen": {"aachen": ones, "celle": np.array([np.nan, 2.0])}},
    )


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "run", "ab12")
    assert checkpoints.load() is None
    written = progress(7)
    checkpoints.save(written)
    found = checkpoints.load()
    assert found is not None
    assert found.state.history == written.state.history
    assert found.state.head["0.weight"].dtype == np.float32
    # the order too: FedAvgM goes by it
    assert list(found.state.head) == ["0.weight", "0.bias"]
    np.testing.assert_array_equal(found.state.optimizer["m_t/0.weight"], np.full((3, 2), 0.1))
    assert found.roster.names == {2: "aachen"}
    assert found.roster.excluded == {"dresden": "reply"}
    assert found.roster.named_in_card == ["aachen"]
    np.testing.assert_array_equal(found.roster.target_counts[2], [24.0, 0.0])
    np.testing.assert_array_equal(found.evaluation.errors["aachen"].count, [1.0, 1.0])
    np.testing.assert_array_equal(found.evaluation.calibration["aachen"].novelty, [3.0, 3.0])
    assert found.products is not None and written.products is not None
    np.testing.assert_array_equal(found.products.basis, np.eye(2))
    np.testing.assert_array_equal(found.products.total.cross, written.products.total.cross)
    np.testing.assert_array_equal(found.crossed["aachen"]["celle"], [np.nan, 2.0])
    assert list(found.crossed["aachen"]) == ["aachen", "celle"]


def test_no_new_run_begins_by_itself_where_all_states_are_damaged(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "ab12")
    checkpoints.save(progress(1))
    (path,) = tmp_path.glob("*.checkpoint")
    path.write_bytes(path.read_bytes()[:-1])
    # a service that is started again after the first error meets the same one
    for _ in range(2):
        with pytest.raises(StateError, match=r"no state of the run in .* is whole"):
            checkpoints.load()


def test_a_history_of_any_length_is_kept(tmp_path: Path) -> None:
    long = "x" * 300
    record = RoundRecord(
        server_round=1, train_loss=0.5, labs=("a",), failed={"b": long}, quarantined={}, out=("c",)
    )
    before = progress(1)
    history = (record,) * 50_000
    before = replace(before, state=replace(before.state, history=history))
    checkpoints = Checkpoints(tmp_path, "ab12")
    checkpoints.save(before)
    after = checkpoints.load()
    assert after is not None and after.state.history == history


def test_two_states_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "ab12")
    for server_round in range(1, 6):
        checkpoints.save(progress(server_round))
    assert len(list(tmp_path.glob("*.checkpoint"))) == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_fault_15_a_damaged_state_is_set_aside(tmp_path: Path, damage: str) -> None:
    checkpoints = Checkpoints(tmp_path, "ab12")
    checkpoints.save(progress(1))
    checkpoints.save(progress(2))
    newest = max(tmp_path.glob("*.checkpoint"))
    content = newest.read_bytes()
    damaged = {
        "flip": content[:-1] + bytes([content[-1] ^ 1]),
        "cut": content[: len(content) // 2],
        "empty": b"",
    }
    newest.write_bytes(damaged[damage])
    found = checkpoints.load()
    assert found is not None and found.state.server_round == 1
    assert [path.name for path in tmp_path.glob("*.damaged")] == [newest.stem + ".damaged"]


def test_no_whole_state_is_an_error_and_no_new_run(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "ab12")
    checkpoints.save(progress(1))
    (path,) = tmp_path.glob("*.checkpoint")
    path.write_bytes(b"rubbish")
    with pytest.raises(StateError, match=r"no state of the run in .* is whole"):
        checkpoints.load()


def test_a_run_under_another_agreement_is_refused(tmp_path: Path) -> None:
    Checkpoints(tmp_path, "ab12").save(progress(1))
    with pytest.raises(StateError, match="holds a run under the agreement ab12"):
        Checkpoints(tmp_path, "cd34").load()


def save_and_die(folder: Path, call: str) -> None:
    """Save a second state, and be killed at one call inside."""

    def die(*arguments: Any, **options: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if call == "replace":
        Path.replace = die  # type: ignore[assignment, method-assign]
    elif call == "close":
        # the first file that is closed is the folder, after the rename
        os.close = die
    else:
        setattr(os, call, die)
    Checkpoints(folder, "ab12").save(progress(2))


@pytest.mark.parametrize(
    ("call", "left"), [("fdopen", 1), ("fsync", 1), ("replace", 1), ("close", 2)]
)
def test_fault_11_killed_while_a_state_is_written(tmp_path: Path, call: str, left: int) -> None:
    checkpoints = Checkpoints(tmp_path, "ab12")
    checkpoints.save(progress(1))
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=save_and_die, args=(tmp_path, call))
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    found = checkpoints.load()
    assert found is not None and found.state.server_round == left
    checkpoints.save(progress(3))
    after = checkpoints.load()
    assert after is not None and after.state.server_round == 3
