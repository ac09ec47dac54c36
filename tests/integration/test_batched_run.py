"""Law 4 over messages: a run of the batched engine equals one of InProcessGrid."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, UserConfig

from client.app import client_app
from client.lab import Lab, split_lab
from client.specimens import Specimens
from common.errors import QuorumError
from common.federation import STRATEGY_OPTIONS, Federation
from common.messages import TRAIN
from server.rounds import RunOptions, Watcher, run_federation
from server.state import RunResult
from simulation import batched
from simulation.batched import BatchedGrid
from simulation.grid import InProcessGrid

SIZES = {"aachen": 30, "bremen": 9, "celle": 25, "dresden": 40, "essen": 16}

OpenLab = Callable[[Context], Lab]


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
            "head": {"hidden": [8, 4], "dropout": 0.2},
            "training": {"rounds": 5, "learning_rate": 0.01} | training,
            "privacy": {"min_specimens": 4},
        }
    )


def make_lab(name: str, federation: Federation) -> Lab:
    size = SIZES[name]
    generator = np.random.default_rng(size)
    features = generator.gamma(2.0, 0.2, (size, federation.num_features)).astype(np.float32)
    weights = np.random.default_rng(0).normal(size=(federation.num_features, 2))
    targets = np.array([80.0, 20.0]) + features @ weights * np.array([2.0, 0.5])
    missing = {"aachen": [1.0, 0.0], "celle": [0.3, 0.3]}.get(name, [0.0, 0.0])
    targets[generator.random(targets.shape) < missing] = np.nan
    made = Specimens(
        lab=name,
        ids=tuple(f"{name}-{index}" for index in range(size)),
        features=features,
        targets=targets,
        groups=np.arange(size),
    )
    return split_lab(made, federation, np.arange(size) % 5 == 0)


def opener(federation: Federation) -> OpenLab:
    labs = {name: make_lab(name, federation) for name in SIZES}
    return lambda context: labs[str(context.node_config["lab"])]


CONFIGS: dict[str, UserConfig] = {name: {"lab": name} for name in SIZES}


def one_by_one(federation: Federation, open_lab: OpenLab) -> RunResult:
    return run_federation(InProcessGrid(client_app(open_lab), CONFIGS), federation)


def together(federation: Federation, open_lab: OpenLab) -> RunResult:
    return run_federation(BatchedGrid(open_lab, CONFIGS), federation)


def rmse(result: RunResult) -> np.ndarray:
    sums = [result.evaluation.errors[name] for name in sorted(result.evaluation.errors)]
    total = sum(sums[1:], start=sums[0])
    return np.array([total.metrics(target)["rmse"] for target in (0, 1)])


def losses(result: RunResult) -> list[float]:
    return [record.train_loss for record in result.history]


def assert_same_run(one: RunResult, other: RunResult) -> None:
    np.testing.assert_allclose(losses(one), losses(other), rtol=1e-4)
    np.testing.assert_allclose(rmse(one), rmse(other), rtol=1e-4)
    for ours, theirs in zip(one.history, other.history, strict=True):
        assert (ours.labs, ours.failed, ours.quarantined) == (
            theirs.labs,
            theirs.failed,
            theirs.quarantined,
        )
    assert one.excluded == other.excluded
    assert one.evaluation.errors.keys() == other.evaluation.errors.keys()
    assert one.released == other.released


@pytest.mark.parametrize(
    "training",
    [
        *({"strategy": strategy} for strategy in STRATEGY_OPTIONS),
        {"optimizer": "sgd", "learning_rate": 0.1},
    ],
)
def test_law_4_over_messages(training: dict[str, Any]) -> None:
    federation = agreement(**training)
    open_lab = opener(federation)
    batched_run = together(federation, open_lab)
    assert_same_run(batched_run, one_by_one(federation, open_lab))
    assert batched_run.excluded == {}
    assert losses(batched_run)[-1] < losses(batched_run)[0]


def test_the_same_bits_twice() -> None:
    federation = agreement()
    first, second = (together(federation, opener(federation)) for _ in range(2))
    assert all((first.head[name] == second.head[name]).all() for name in first.head)
    assert first.history == second.history


def test_what_is_kept_and_how_many_go_together_changes_no_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    federation = agreement()
    usual = together(federation, opener(federation))
    monkeypatch.setattr(batched, "KEPT_BYTES", 100_000)
    monkeypatch.setattr(batched, "LABS_AT_ONCE", 2)
    assert_same_run(together(federation, opener(federation)), usual)


def test_standardised_specimens_are_let_go_when_the_rounds_are_over() -> None:
    """What labs are asked afterwards takes memory of its own: both would be a run's peak."""
    federation = agreement(rounds=2)
    grid = BatchedGrid(opener(federation), CONFIGS)
    held: dict[str, int] = {}

    def entered(phase: str) -> None:
        held[phase] = len(grid._tables)

    run_federation(grid, federation, RunOptions(watcher=Watcher(entered=entered)))
    assert held["sums of products"] == len(SIZES)
    assert held["evaluate"] == held["release"] == 0


def test_labs_that_change_between_runs_are_standardised_anew() -> None:
    """One grid, two runs: what was kept of the first must not be trained on in the second."""
    federation = agreement(rounds=2)
    labs = {name: make_lab(name, federation) for name in SIZES}

    def open_lab(context: Context) -> Lab:
        return labs[str(context.node_config["lab"])]

    grid = BatchedGrid(open_lab, CONFIGS)
    before = run_federation(grid, federation)
    labs["dresden"] = split_lab(
        labs["dresden"].training, federation, np.arange(len(labs["dresden"].training)) < 10
    )
    assert_same_run(run_federation(grid, federation), one_by_one(federation, open_lab))
    assert losses(before) != losses(one_by_one(federation, open_lab))


def failing(open_lab: OpenLab, name: str, at: int) -> OpenLab:
    """Return an opener that fails for one lab from its `at`-th request on."""
    asked: list[str] = []

    def open_or_fail(context: Context) -> Lab:
        lab = str(context.node_config["lab"])
        asked.append(lab)
        if lab == name and asked.count(name) >= at:
            raise RuntimeError("specimen X-17 of /home/celle/secret.csv has strength 612.5")
        return open_lab(context)

    return open_or_fail


def test_a_lab_that_fails_in_training_leaves_as_a_code() -> None:
    federation = agreement()
    # handshake, statistics, first round: the third request is the first to train
    found = together(federation, failing(opener(federation), "celle", at=3))
    expected = one_by_one(federation, failing(opener(federation), "celle", at=3))
    assert_same_run(found, expected)
    assert found.history[0].failed == {"celle": "internal"}
    assert "secret" not in repr(found)


def test_when_all_diverge_the_run_ends_with_the_same_words() -> None:
    federation = agreement(optimizer="sgd", learning_rate=1e30, quorum=1.0)
    with pytest.raises(QuorumError) as of_batched:
        together(federation, opener(federation))
    with pytest.raises(QuorumError) as of_grid:
        one_by_one(federation, opener(federation))
    assert sorted(str(of_batched.value).split("; ")) == sorted(str(of_grid.value).split("; "))
    assert "diverged" in str(of_batched.value)


class Listening(BatchedGrid):
    """A grid that writes down what is asked and answered."""

    heard: list[tuple[Message, Message]]

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
        asked = list(messages)
        replies = super().send_and_receive(asked, timeout=timeout)
        self.heard = [*getattr(self, "heard", []), *zip(asked, replies, strict=True)]
        return replies


def arrays_of(message: Message) -> Mapping[str, Any]:
    return message.content.array_records["arrays"]


def test_replies_are_ordinary_and_share_no_memory() -> None:
    federation = agreement(rounds=1)
    grid = Listening(opener(federation), CONFIGS)
    # Flower's strategies and the screen change what they are handed; so does this test
    run_federation(grid, federation)
    trained = [pair for pair in grid.heard if pair[0].metadata.message_type == TRAIN]
    assert len(trained) == len(SIZES)
    for request, reply in trained:
        assert reply.metadata.reply_to_message_id == request.metadata.message_id
        assert reply.metadata.src_node_id == request.metadata.dst_node_id
        assert reply.metadata.message_type == TRAIN
    heads = [arrays_of(message) for pair in trained for message in pair]
    before = [{name: array.numpy() for name, array in head.items()} for head in heads]
    first = heads[1]["0.weight"].numpy()
    first[:] = np.nan
    for head, values in zip(heads, before, strict=True):
        for name, array in head.items():
            np.testing.assert_array_equal(array.numpy(), values[name])
