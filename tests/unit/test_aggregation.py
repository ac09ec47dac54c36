"""What no lab can have counted or measured is refused, and what stands apart decides nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from flwr.clientapp import ClientApp

from common.counts import bucketed
from common.errors import ReplyError
from common.federation import Federation, Training
from common.messages import TRAIN, StatisticsReply, TrainReply, message_to
from common.standardise import Moments
from server.screening import check_statistics
from server.state import RoundState
from server.training_round import averaged, strategy_after
from simulation.grid import InProcessGrid

FEDERATION = Federation.model_validate(
    {
        "name": "test",
        "targets": {"strength": {"unit": "MPa", "range": [0, 200]}},
        "imaging": {"scale": "fit"},
        "backbone": {"name": "resnet18"},
    }
)


def statistics(count: int) -> StatisticsReply:
    def moments(length: int) -> Moments:
        ones = np.ones(length)
        return Moments(count=count * ones, total=0.5 * count * ones, squares=count * ones)

    return StatisticsReply(
        num_examples=count, features=moments(FEDERATION.num_features), targets=moments(1)
    )


def test_counts_that_a_lab_can_have() -> None:
    check_statistics(statistics(500), bucketed(500), FEDERATION)


def test_a_lab_that_counts_a_million_million_specimens_in_every_phase() -> None:
    many = 10**12
    with pytest.raises(ReplyError, match="1000000000000 specimens are more than any lab has"):
        check_statistics(statistics(many), bucketed(many), FEDERATION)


def test_a_spread_that_would_make_all_targets_nothing() -> None:
    wide = replace(
        statistics(50), targets=replace(statistics(50).targets, squares=np.array([1e300]))
    )
    with pytest.raises(ReplyError, match="a spread is wider than the federation's range"):
        check_statistics(wide, bucketed(50), FEDERATION)


def averaged_row(strategy: str, rows: list[float], counts: list[int]) -> np.ndarray:
    """Return a target's weight and bias by a strategy, of labs that send these for both."""
    first = {"0.weight": np.ones((2, 1), np.float32), "0.bias": np.ones(2, np.float32)}
    chosen = strategy_after(
        RoundState(server_round=0, head=first), Training.model_validate({"strategy": strategy})
    )
    updates = [
        TrainReply(
            head={
                "0.weight": np.array([[1.0], [row]], np.float32),
                "0.bias": np.array([1.0, row], np.float32),
            },
            num_examples=50,
            train_loss=None,
        )
        for row in rows
    ]
    # Flower makes messages for a task alone, which a grid begins
    InProcessGrid(ClientApp(), {})
    replies = [message_to(node, TRAIN, update.to_record()) for node, update in enumerate(updates)]
    both = np.stack([np.full(len(counts), 50), counts], axis=1)
    head = averaged(chosen, 1, replies=replies, updates=updates, counts=both)
    return np.array([head["0.weight"][1, 0], head["0.bias"][1]])


@pytest.mark.parametrize("strategy", ["median", "trimmed_mean", "krum"])
@pytest.mark.parametrize("num_without", range(5))
@pytest.mark.parametrize("hostile", [150.0, -150.0])
def test_labs_without_a_target_give_a_hostile_one_no_more_votes(
    strategy: str, num_without: int, hostile: float
) -> None:
    honest = [1.0, 1.1, 0.9, 1.05, 0.95, 1.0][: 6 - num_without]
    # who lacks the target sends its row back as it came, decayed
    rows = [hostile, *honest, *[0.99] * num_without]
    found = averaged_row(strategy, rows, [50] * (7 - num_without) + [0] * num_without)
    assert (found >= min(honest) - 1e-6).all() and (found <= max(honest) + 1e-6).all()
