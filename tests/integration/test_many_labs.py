"""Of more labs than are asked at once, no more heads are held; the mean is the same to the bit."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from copy import deepcopy
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
from server.state import Progress, RoundRecord, RunResult
from simulation import batched
from simulation.batched import BatchedGrid
from simulation.grid import InProcessGrid

NUM_LABS, HIDDEN = 24, 32

NAMES = [f"lab-{number:02d}" for number in range(NUM_LABS)]

CONFIGS: dict[str, UserConfig] = {name: {"lab": name} for name in NAMES}

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
            "head": {"hidden": [HIDDEN]},
            "training": {"rounds": 3, "local_epochs": 1, "quorum": 0.5} | training,
            "privacy": {"min_specimens": 4},
        }
    )


def make_lab(number: int, federation: Federation) -> Lab:
    """Return a lab of its own size; every third has measured one target less often."""
    size = 12 + number
    generator = np.random.default_rng(number)
    targets = generator.uniform([20, 5], [180, 45], (size, 2))
    if number % 3 == 0:
        targets[: size // 2, 1] = np.nan
    made = Specimens(
        lab=NAMES[number],
        ids=tuple(str(row) for row in range(size)),
        features=generator.gamma(2.0, 0.2, (size, federation.num_features)).astype(np.float32),
        targets=targets,
        groups=np.arange(size),
    )
    return split_lab(made, federation, np.arange(size) % 4 == 0)


def opener(federation: Federation) -> OpenLab:
    labs = {name: make_lab(number, federation) for number, name in enumerate(NAMES)}
    return lambda context: labs[str(context.node_config["lab"])]


class Counting(InProcessGrid):
    """A grid that writes down how many labs are asked to train in one go."""

    def __init__(self, open_lab: OpenLab, at_once: int | None) -> None:
        super().__init__(client_app(open_lab), CONFIGS)
        self.labs_at_once = at_once  # type: ignore[assignment, misc]  # of this one grid
        self.asked: list[int] = []

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
        asked = list(messages)
        if asked[0].metadata.message_type == TRAIN:
            self.asked.append(len(asked))
        return super().send_and_receive(asked, timeout=timeout)


def run(federation: Federation, open_lab: OpenLab, at_once: int | None) -> tuple[RunResult, Any]:
    grid = Counting(open_lab, at_once)
    return run_federation(grid, federation), grid.asked


def assert_same_bits(one: RunResult, other: RunResult) -> None:
    assert one.history == other.history
    assert one.excluded == other.excluded
    for name, array in one.head.items():
        assert array.dtype == np.float32
        assert array.tobytes() == other.head[name].tobytes()


@pytest.mark.parametrize("strategy", [name for name in STRATEGY_OPTIONS if name != "ridge"])
def test_a_mean_in_passing_is_the_strategys_own_to_the_bit(strategy: str) -> None:
    federation = agreement(strategy=strategy)
    passing, asked = run(federation, opener(federation), at_once=5)
    assert_same_bits(passing, run(federation, opener(federation), at_once=None)[0])
    needs_all = strategy in ("trimmed_mean", "median", "krum")
    assert asked == ([NUM_LABS] * 3 if needs_all else [5, 5, 5, 5, 4] * 3)


class Losing(Counting):
    """A grid whose labs fail, or send what breaks the schema, in rounds by name of lab."""

    def __init__(self, open_lab: OpenLab, at_once: int | None, faults: dict[str, set[int]]) -> None:
        super().__init__(open_lab, at_once)
        self.faults = faults

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
        asked = list(messages)
        replies = super().send_and_receive(asked, timeout=timeout)
        if asked[0].metadata.message_type != TRAIN:
            return replies
        number = int(asked[0].content.config_records["config"]["server-round"])
        kept = []
        for message, reply in zip(asked, replies, strict=True):
            name = NAMES[message.metadata.dst_node_id - 2]
            if number not in self.faults.get(name, set()):
                kept.append(reply)
            elif name.endswith("7"):
                reply.content.array_records["arrays"].popitem()
                kept.append(reply)
        return kept


def test_labs_that_fail_or_break_the_schema_change_the_shares_of_the_others() -> None:
    """lab-03 is silent from round 2 on, lab-20 in round 4 alone; lab-07 is quarantined."""
    federation = agreement(rounds=5)
    faults = {"lab-03": {2, 3, 4, 5}, "lab-20": {4}, "lab-07": {2}}
    grids = [Losing(opener(federation), at_once, faults) for at_once in (5, None)]
    passing, held = (run_federation(grid, federation) for grid in grids)
    assert_same_bits(passing, held)
    assert [sorted(record.failed) for record in passing.history] == [
        [],
        ["lab-03"],
        ["lab-03"],
        ["lab-03", "lab-20"],
        ["lab-03"],
    ]
    assert [sorted(record.quarantined) for record in passing.history[:3]] == [[], ["lab-07"], []]
    assert list(passing.excluded) == ["lab-07"]
    all_labs, one_less = [5, 5, 5, 5, 4], [5, 5, 5, 5, 3]
    # again where others answer than in the round before, at once where they are the same
    assert grids[0].asked == [*all_labs, *all_labs * 2, *one_less, *one_less * 2, *one_less * 2]


class Memory:
    """Keeps progress as it was when it was saved."""

    def __init__(self) -> None:
        self.saved: Progress | None = None

    def load(self) -> Progress | None:
        return deepcopy(self.saved)

    def save(self, progress: Progress) -> None:
        self.saved = deepcopy(progress)


@pytest.mark.parametrize("killed_after", [1, 2])
def test_killed_and_resumed_is_never_killed_to_the_bit(killed_after: int) -> None:
    federation = agreement(strategy="fedadam", rounds=4)
    faults = {"lab-03": {2, 3, 4}}
    whole = run_federation(Losing(opener(federation), 5, faults), federation)
    keeper = Memory()

    def kill(record: RoundRecord) -> None:
        if record.server_round == killed_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_federation(
            Losing(opener(federation), 5, faults),
            federation,
            RunOptions(keeper=keeper, watcher=Watcher(counted=kill)),
        )
    grid = Losing(opener(federation), 5, faults)
    assert_same_bits(run_federation(grid, federation, RunOptions(keeper=keeper)), whole)
    # after round 2 it is known who is silent; after round 1 it is not
    assert len(grid.asked) == 5 * (2 if killed_after == 2 else 4)


class Fickle(Counting):
    """A grid on which another lab is missing at each time that all are asked."""

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
        replies = super().send_and_receive(messages, timeout=timeout)
        if not self.asked or len(replies) < 2:
            return replies
        return replies[1:] if sum(self.asked) % (2 * NUM_LABS) > NUM_LABS else replies[:-1]


def test_labs_that_answer_now_and_not_then_are_averaged_with_all_at_hand() -> None:
    federation = agreement(rounds=1)
    grid = Fickle(opener(federation), at_once=5)
    found = run_federation(grid, federation)
    assert grid.asked == [*[5, 5, 5, 5, 4] * 2, NUM_LABS]
    missing = set(NAMES) - set(found.history[0].labs)
    assert len(missing) == 1
    held = Losing(opener(federation), None, {name: {1} for name in missing})
    assert_same_bits(found, run_federation(held, federation))


def test_when_all_fail_all_are_named() -> None:
    federation = agreement(optimizer="sgd", learning_rate=1e30)
    with pytest.raises(QuorumError, match="0 of 24 labs took part") as raised:
        run(federation, opener(federation), at_once=5)
    assert sorted(re.findall(r"lab-\d\d(?= \()", str(raised.value))) == NAMES


def peak_of_rounds(monkeypatch: pytest.MonkeyPatch, at_once: int | None) -> int:
    """Return how many bytes of arrays a round takes at its peak, of labs trained three at once."""
    monkeypatch.setattr(batched, "LABS_AT_ONCE", 3)
    monkeypatch.setattr(batched, "KEPT_BYTES", 0)
    federation = agreement()
    grid = BatchedGrid(opener(federation), CONFIGS)
    grid.labs_at_once = at_once  # type: ignore[assignment, misc]  # of this one grid
    peaks = []

    def counted(record: object) -> None:
        now, peak = tracemalloc.get_traced_memory()
        peaks.append(peak - now)
        tracemalloc.reset_peak()

    tracemalloc.start()
    try:
        run_federation(grid, federation, RunOptions(watcher=Watcher(counted=counted)))
    finally:
        tracemalloc.stop()
    return max(peaks[1:])


def test_heads_of_a_group_are_held_and_not_those_of_all_labs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    federation = agreement()
    head = 4 * ((federation.num_features + 1) * HIDDEN + 2 * (HIDDEN + 1))
    passing, held = peak_of_rounds(monkeypatch, 3), peak_of_rounds(monkeypatch, None)
    # the others' are gone when a group trains; what its training takes, it takes both times
    assert held - passing > (NUM_LABS - 3) * head * 0.9
    assert passing < NUM_LABS * head
