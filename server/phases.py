"""The phases of a run, one method each: ask the labs, screen what they say, sum it up."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common.errors import NO_REPLY, NOT_CONNECTED, QuorumError, ReplyError
from common.federation import Federation
from common.head import HeadArrays, federation_shapes
from common.messages import (
    EVALUATE,
    HANDSHAKE,
    RELEASE,
    STATISTICS,
    EvaluateReply,
    HandshakeReply,
    ModelRequest,
    ReleaseReply,
    StatisticsReply,
    Terms,
    TrainReply,
    message_to,
)
from common.metrics import ErrorSums
from common.standardise import Standardiser
from common.units import seconds
from server.aggregation import (
    check_errors,
    check_statistics,
    check_update,
    mean_loss,
)
from server.roster import Roster
from server.state import RoundRecord, RoundState
from server.strategy import Screened, check_replies, optimizer_state
from server.training_round import averaged, strategy_after, train_requests


@dataclass(frozen=True, kw_only=True)
class Coordinator:
    """Takes the labs on a grid through the phases of a run, in the order of its methods.

    Each phase raises QuorumError, naming those that are missing, if too few labs take part; it may
    then be run again.

    Attributes
    ----------
    grid : Grid
    federation : Federation
    roster : Roster
    revoked : callable
        Returns the nodes of the labs that have been put out.
    """

    grid: Grid
    federation: Federation
    roster: Roster = field(default_factory=Roster)
    revoked: Callable[[], Collection[int]] = tuple

    def shake_hands(self) -> None:
        """Let in the labs that hold the same agreement and version; the others are out by name."""
        nodes = self._wait_for_nodes()

        def check(node: int, reply: Message) -> None:
            hello = HandshakeReply.from_record(reply.content)
            self._check_name(node, hello)
            self.roster.names[node] = hello.lab
            self.roster.buckets[node] = hello.num_examples
            self._check_agreement(hello)

        record = self._terms.to_record()
        screened = self._ask([message_to(node, HANDSHAKE, record) for node in nodes], check)
        self.roster.exclude(screened.broken | screened.failed)
        absent = set(self.roster.enrolled) - {*self.roster.names, *nodes, *self.revoked()}
        self.roster.exclude(dict.fromkeys(absent, "not there when the run began"))
        self.roster.accepted = sorted(self.roster.names)
        self._require_quorum(len(screened.accepted), "handshake")

    def gather_statistics(self) -> Standardiser:
        """Add up the labs' moments into the one standardiser."""
        num_features, num_targets = self.federation.num_features, len(self.federation.targets)
        replies: dict[int, StatisticsReply] = {}

        def check(node: int, reply: Message) -> None:
            statistics = StatisticsReply.from_record(
                reply.content, num_features=num_features, num_targets=num_targets
            )
            check_statistics(statistics, self.roster.buckets[node], self.federation)
            replies[node] = statistics

        record = self._terms.to_record()
        requests = [message_to(node, STATISTICS, record) for node in self.roster.names]
        screened = self._ask(requests, check)
        self.roster.exclude(screened.broken)
        self._require_quorum(len(replies), "statistics", screened)
        self.roster.exclude(screened.failed)
        for node, reply in replies.items():
            self.roster.num_examples[node] = reply.num_examples
            self.roster.target_counts[node] = reply.targets.count
        summed = self.roster.by_name(replies)
        self.roster.standardised = [self.roster.name(node) for node in summed]
        first, *others = [replies[node] for node in summed]
        return Standardiser.from_moments(
            sum((reply.features for reply in others), start=first.features),
            sum((reply.targets for reply in others), start=first.targets),
            feature_shift=self.federation.feature_shift,
            feature_weight=self.federation.feature_weight,
            target_shift=self.federation.target_shift,
        )

    def train_round(self, state: RoundState, standardiser: Standardiser) -> RoundState:
        """Train one round and return the state after it."""
        server_round = state.server_round + 1
        self.roster.forget(self.revoked())
        if not self.roster.names:
            # Flower would wait for a node for ever
            self._require_quorum(0, f"round {server_round}")
        shapes = federation_shapes(self.federation)
        updates: dict[int, TrainReply] = {}

        def check(node: int, reply: Message) -> None:
            update = TrainReply.from_record(reply.content, shapes=shapes)
            check_update(update, state.head, self.roster.num_examples[node])
            updates[node] = update

        strategy = strategy_after(state, self.federation.training)
        requests = train_requests(strategy, state, standardiser, self._terms, self.roster.names)
        screened = self._ask(requests, check)
        self._require_quorum(len(updates), f"round {server_round}", screened)
        nodes = self.roster.by_name(updates)
        record = RoundRecord(
            server_round=server_round,
            train_loss=mean_loss([updates[node] for node in nodes]),
            labs=tuple(self.roster.name(node) for node in nodes),
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
        )
        self.roster.exclude(screened.broken)
        return RoundState(
            server_round=server_round,
            head=head,
            optimizer=optimizer_state(strategy),
            history=(*state.history, record),
        )

    def evaluate(self, head: HeadArrays, standardiser: Standardiser) -> dict[str, ErrorSums]:
        """Return the sums of the head's errors, of each lab that has enough to share them."""
        num_targets = len(self.federation.targets)
        replies: dict[int, EvaluateReply] = {}

        def check(node: int, reply: Message) -> None:
            evaluation = EvaluateReply.from_record(reply.content, num_targets=num_targets)
            check_errors(evaluation)
            replies[node] = evaluation

        record = self._model_record(head, standardiser)
        requests = [message_to(node, EVALUATE, record) for node in self.roster.names]
        screened = self._ask(requests, check)
        silent = [why for why in screened.failed.values() if why in (NO_REPLY, NOT_CONNECTED)]
        self._require_quorum(len(requests) - len(silent), "evaluation", screened)
        self.roster.exclude(screened.broken)
        return {
            self.roster.name(node): replies[node].errors for node in self.roster.by_name(replies)
        }

    def release(
        self, head: HeadArrays, standardiser: Standardiser, labs: Collection[str]
    ) -> tuple[str, ...]:
        """Hand the model to these labs, and return those that say that they have kept it.

        A lab that is away stays without it, and costs the others nothing: there is no quorum.
        """
        kept: list[str] = []

        def check(node: int, reply: Message) -> None:
            if ReleaseReply.from_record(reply.content).fingerprint != self._terms.fingerprint:
                raise ReplyError("has kept the model of another agreement")
            kept.append(self.roster.name(node))

        record = self._model_record(head, standardiser)
        nodes = [node for node in self.roster.names if self.roster.name(node) in labs]
        self._ask([message_to(node, RELEASE, record) for node in nodes], check)
        return tuple(sorted(kept))

    @property
    def _terms(self) -> Terms:
        return Terms.of(self.federation)

    def _model_record(self, head: HeadArrays, standardiser: Standardiser) -> RecordDict:
        request = ModelRequest(terms=self._terms, head=head, standardiser=standardiser)
        return request.to_record()

    def _ask(self, requests: list[Message], check: Callable[[int, Message], None]) -> Screened:
        deadline = seconds(self.federation.training.round_deadline)
        replies = list(self.grid.send_and_receive(requests, timeout=deadline))
        asked = {m.metadata.message_id: m.metadata.dst_node_id for m in requests}
        screened = check_replies(replies, check, asked)
        self.roster.forget(self.revoked())
        return screened

    def _wait_for_nodes(self) -> list[int]:
        """Wait for the first lab, up to the deadline of a round."""
        until = time.monotonic() + seconds(self.federation.training.round_deadline)
        while not (nodes := sorted(self.grid.get_node_ids())):
            if time.monotonic() > until:
                raise QuorumError("handshake: no lab has come before the deadline of a round")
            time.sleep(0.1)
        return nodes

    def _check_name(self, node: int, hello: HandshakeReply) -> None:
        enrolled = self.roster.enrolled.get(node, hello.lab)
        if hello.lab != enrolled:
            raise ReplyError(f"calls itself {hello.lab}, and its certificate says {enrolled}")

    def _check_agreement(self, hello: HandshakeReply) -> None:
        ours = self._terms
        if hello.version != ours.version:
            raise ReplyError(f"runs crossply {hello.version}, the coordinator {ours.version}")
        if hello.fingerprint != ours.fingerprint:
            raise ReplyError(
                f"holds the agreement {hello.fingerprint[:12]}, the coordinator "
                f"{ours.fingerprint[:12]}"
            )
        if list(self.roster.names.values()).count(hello.lab) > 1:
            raise ReplyError("another lab of the same name is in already")

    def _require_quorum(self, present: int, phase: str, screened: Screened | None = None) -> None:
        missing = dict(self.roster.excluded)
        if screened is not None:
            missing |= self.roster.named(screened.failed | screened.broken)
        self.roster.require_quorum(present, self.federation.training.quorum, phase, missing)
