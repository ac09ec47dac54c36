"""A round by a strategy of Flower's: what labs are asked, and what becomes of their updates."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from common.errors import QuorumError
from common.federation import Training
from common.head import HeadArrays
from common.messages import Terms, TrainReply, head_arrays, head_record
from common.seeds import seed_for, seed_global_streams
from server.aggregation import RunningMean, weigh_rows
from server.state import RoundState
from server.strategy import ROBUST, make_strategy, restore_optimizer


def strategy_after(state: RoundState, training: Training) -> Strategy:
    """Return the strategy as the rounds before left it, in this process or in another."""
    seed_global_streams(seed_for(training.seed, "round", state.server_round + 1))
    strategy = make_strategy(training)
    restore_optimizer(strategy, state.optimizer)
    return strategy


def train_requests(
    strategy: Strategy,
    state: RoundState,
    shared: Mapping[str, ArrayRecord],
    terms: Terms,
    nodes: Collection[int],
) -> list[Message]:
    """Return what the strategy asks of these nodes in the next round, and what goes with it."""
    present = cast(Grid, _Present(list(nodes)))
    head, config = head_record(state.head), terms.to_config()
    messages = list(strategy.configure_train(state.server_round + 1, head, config, present))
    # as a rule one record for all
    for content in {id(message.content): message.content for message in messages}.values():
        for key, record in shared.items():
            content[key] = record
    return messages


def averaged(
    strategy: Strategy,
    server_round: int,
    *,
    replies: Sequence[Message],
    updates: Sequence[TrainReply],
    counts: np.ndarray,
    mean: RunningMean | None = None,
) -> HeadArrays:
    """Return the head that the strategy makes of the labs' updates.

    Parameters
    ----------
    strategy : Strategy
    server_round : int
    replies : sequence of Message
        Accepted, in the order of the labs' names. What a strategy sees of them is written anew:
        our keys, our order, nothing a lab added, and no losses, which Flower would want of all
        labs or of none.
    updates : sequence of TrainReply
        What was read from them.
    counts : ndarray of shape (n_labs, n_targets)
        How many training specimens of each lab have each target.
    mean : RunningMean or None
        What has taken the updates in passing, in this order, if something has.

    Raises
    ------
    QuorumError
        If the strategy makes nothing of them.
    """
    weighed = weigh_rows(updates, counts, robust=isinstance(strategy, ROBUST))
    if mean is not None:
        # to a strategy that averages, the mean of all is the reply of one lab
        replies, weighed = replies[:1], [mean.completed(weighed)]
    for reply, update in zip(replies, weighed, strict=True):
        reply.content = update.to_average()
    arrays, _ = strategy.aggregate_train(server_round, replies)
    if arrays is None:
        raise QuorumError(f"round {server_round}: the strategy made nothing of the replies")
    return head_arrays(arrays)


@dataclass(frozen=True)
class _Present:
    """All that a strategy asks of a grid when it configures a round: the nodes that are in.

    Flower's sampling waits without a bound for nodes that have left the real grid.
    """

    nodes: list[int]

    def get_node_ids(self) -> list[int]:
        """Return the nodes."""
        return self.nodes
