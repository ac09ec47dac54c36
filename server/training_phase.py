"""The phase that is run again and again: labs train the shared head, and a strategy averages."""

from __future__ import annotations

import numpy as np
from flwr.app import Message
from flwr.serverapp.strategy import Strategy

from common.head import HeadArrays
from common.messages import TrainReply, training_records
from common.projection import trained_shapes
from common.standardise import Standardiser
from server.aggregation import RunningMean, mean_loss
from server.asking import Asker
from server.grid import RunGrid
from server.screening import check_update
from server.state import RoundRecord, RoundState
from server.strategy import ROBUST, Screened, optimizer_state
from server.training_round import averaged, strategy_after, train_requests

MOST_TRIES = 2
"""How often a round is asked in groups: once more where other labs answer than were expected. Where
that happens again, all heads are held."""


class TrainingPhase(Asker):
    """Asks labs to train; of very many that take turns, it holds the heads of a group at a time."""

    def train_round(
        self, state: RoundState, standardiser: Standardiser, projection: np.ndarray | None = None
    ) -> RoundState:
        """Train one round and return the state after it."""
        server_round = state.server_round + 1
        self.roster.forget(self.revoked())
        if not self.roster.names:
            # Flower would wait for a node for ever
            self._require_quorum(0, f"round {server_round}")
        strategy = strategy_after(state, self.federation.training)
        shared = training_records(standardiser, projection, self.federation)
        requests = train_requests(strategy, state, shared, self._terms, self.roster.names)
        screened, updates, mean = self._updates(requests, strategy, state)
        self._require_quorum(len(updates), f"round {server_round}", screened)
        nodes = self.roster.by_name(updates)
        record = RoundRecord(
            server_round=server_round,
            train_loss=mean_loss([updates[node] for node in nodes]),
            labs=self.roster.in_order(nodes),
            failed=self.roster.named(screened.failed),
            quarantined=self.roster.named(screened.broken),
            out=tuple(sorted(self.roster.excluded)),
        )
        head = averaged(
            strategy,
            server_round,
            replies=[screened.accepted[node] for node in nodes],
            updates=[updates[node] for node in nodes],
            counts=np.stack([self.roster.target_counts[node] for node in nodes]),
            mean=mean,
        )
        self.roster.exclude(screened.broken)
        return RoundState(
            server_round=server_round,
            head=head,
            optimizer=optimizer_state(strategy),
            history=(*state.history, record),
        )

    def _updates(
        self, requests: list[Message], strategy: Strategy, state: RoundState
    ) -> tuple[Screened, dict[int, TrainReply], RunningMean | None]:
        """Ask for updates; where labs take turns and the strategy averages, average in passing.

        Those labs are expected that did not fail in the round before. Where they are not those
        that answer, all are asked again: a lab more or less changes the share of every other.
        """
        at_once = self._labs_at_once
        if at_once is None or len(requests) <= at_once or isinstance(strategy, ROBUST):
            return *self._ask_for_updates(requests, state.head), None
        requests = self._by_name(requests)
        failed = state.history[-1].failed if state.history else {}
        nodes = list(self.roster.names)
        names = self.roster.in_order(nodes)
        expected = {node for node, name in zip(nodes, names, strict=True) if name not in failed}
        expected = expected or set(nodes)
        for _ in range(MOST_TRIES):
            counts = {node: self.roster.num_examples[node] for node in expected}
            mean = RunningMean(num_examples=counts)
            screened, updates = self._ask_for_updates(requests, state.head, mean)
            if not updates or set(updates) == expected:
                return screened, updates, mean
            expected = set(updates)
        return *self._ask_for_updates(requests, state.head), None

    @property
    def _labs_at_once(self) -> int | None:
        return self.grid.labs_at_once if isinstance(self.grid, RunGrid) else None

    def _by_name(self, requests: list[Message]) -> list[Message]:
        """Return requests in the order in which their replies are added up."""
        of_nodes = {message.metadata.dst_node_id: message for message in requests}
        return [of_nodes[node] for node in self.roster.by_name(of_nodes)]

    def _ask_for_updates(
        self, requests: list[Message], head: HeadArrays, mean: RunningMean | None = None
    ) -> tuple[Screened, dict[int, TrainReply]]:
        """Return the screened replies and what was read from them, less what a mean has taken."""
        shapes = trained_shapes(self.federation)
        updates: dict[int, TrainReply] = {}

        def check(node: int, reply: Message) -> None:
            update = TrainReply.from_record(reply.content, shapes=shapes)
            check_update(update, head, self.roster.num_examples[node])
            if mean is not None:
                update = mean.take(update)
                reply.content = update.to_average()
            updates[node] = update

        at_once = None if mean is None else self._labs_at_once
        return self._ask(requests, check, at_once), updates
