"""A run: handshake, statistics, rounds of training, evaluation, over any Flower grid."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from math import ceil

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from common.errors import QuorumError, ReplyError
from common.federation import Federation
from common.head import HeadArrays, federation_shapes, initial_head
from common.messages import (
    EVALUATE,
    HANDSHAKE,
    STANDARDISER,
    STATISTICS,
    EvaluateReply,
    EvaluateRequest,
    HandshakeReply,
    StatisticsReply,
    TrainReply,
    head_arrays,
    head_record,
    message_to,
    query_record,
    standardiser_record,
    train_config,
)
from common.metrics import ErrorSums
from common.seeds import seed_global_streams
from common.standardise import Standardiser
from common.units import seconds
from server.aggregation import check_update, mean_loss
from server.strategy import Screened, check_replies, make_strategy


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """What happened in one round: the loss, who took part, and who did not and why."""

    server_round: int
    train_loss: float
    labs: tuple[str, ...]
    failed: dict[str, str]
    quarantined: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class RoundState:
    """What one round hands to the next."""

    server_round: int
    head: HeadArrays
    history: tuple[RoundRecord, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run ends with.

    Attributes
    ----------
    labs : tuple of str
        Those that were in at the end.
    excluded : dict of str to str
        Labs that were refused or quarantined, with the reason.
    evaluation : dict of str to ErrorSums
        Of each lab that has enough held-out specimens to share the sums of their errors.
    """

    head: HeadArrays
    standardiser: Standardiser
    history: tuple[RoundRecord, ...]
    labs: tuple[str, ...]
    excluded: dict[str, str]
    evaluation: dict[str, ErrorSums]


@dataclass(kw_only=True)
class Roster:
    """The labs of a run: who is in, by node, and who is out and why."""

    names: dict[int, str] = field(default_factory=dict)
    num_examples: dict[int, int] = field(default_factory=dict)
    excluded: dict[str, str] = field(default_factory=dict)
    num_accepted: int = 0

    def name(self, node: int) -> str:
        """Return the name of the lab on a node, or what can be said of an unknown one."""
        return self.names.get(node, f"node {node}")

    def exclude(self, node: int, reason: str) -> None:
        """Put a lab out of the run, by name."""
        self.excluded[self.name(node)] = reason
        self.names.pop(node, None)


def run_federation(
    grid: Grid,
    federation: Federation,
    on_round: Callable[[RoundRecord], None] = lambda record: None,
) -> RunResult:
    """Run a federation from handshake to evaluation.

    Parameters
    ----------
    grid : Grid
        Any of Flower's, or crossply's own: labs are reached through it alone.
    federation : Federation
    on_round : callable
        Told of each round that counted.

    Raises
    ------
    QuorumError
        If too few labs take part in any phase; names those that are missing.
    """
    seed_global_streams(federation.training.seed)
    coordinator = Coordinator(grid=grid, federation=federation)
    coordinator.shake_hands()
    standardiser = coordinator.gather_statistics()
    strategy = make_strategy(federation.training)
    head = initial_head(federation_shapes(federation), federation.training.seed)
    state = RoundState(server_round=0, head=head)
    while state.server_round < federation.training.rounds:
        state = coordinator.train_round(state, strategy, standardiser)
        on_round(state.history[-1])
    return RunResult(
        head=state.head,
        standardiser=standardiser,
        history=state.history,
        labs=tuple(sorted(coordinator.roster.names.values())),
        excluded=coordinator.roster.excluded,
        evaluation=coordinator.evaluate(state.head, standardiser),
    )


@dataclass(frozen=True, kw_only=True)
class Coordinator:
    """Takes the labs on a grid through the phases of a run, in the order of its methods."""

    grid: Grid
    federation: Federation
    roster: Roster = field(default_factory=Roster)

    def shake_hands(self) -> None:
        """Let in the labs that hold the same agreement and version; the others are out by name."""
        nodes = self._wait_for_nodes()
        fingerprint = self.federation.fingerprint()

        def check(node: int, reply: Message) -> None:
            hello = HandshakeReply.from_record(reply.content)
            self.roster.names[node] = hello.lab
            self._check_agreement(node, hello)

        messages = [message_to(node, HANDSHAKE, query_record(fingerprint)) for node in nodes]
        screened = self._ask(messages, check)
        self._exclude(screened.broken | screened.failed)
        self.roster.num_accepted = len(self.roster.names)
        self._require_quorum(len(screened.accepted), "handshake")

    def gather_statistics(self) -> Standardiser:
        """Add up the labs' moments into the one standardiser."""
        num_features, num_targets = self.federation.num_features, len(self.federation.targets)
        replies: dict[int, StatisticsReply] = {}

        def check(node: int, reply: Message) -> None:
            statistics = StatisticsReply.from_record(
                reply.content, num_features=num_features, num_targets=num_targets
            )
            if not (statistics.features.count == statistics.num_examples).all():
                raise ReplyError("the features' counts differ from the number of specimens")
            replies[node] = statistics

        screened = self._ask(self._queries(STATISTICS), check)
        self._exclude(screened.broken | screened.failed)
        self._require_quorum(len(replies), "statistics")
        ordered = [replies[node] for node in self._by_name(replies)]
        self.roster.num_examples.update(
            {node: reply.num_examples for node, reply in replies.items()}
        )
        features, targets = ordered[0].features, ordered[0].targets
        for reply in ordered[1:]:
            features, targets = features + reply.features, targets + reply.targets
        return Standardiser.from_moments(features, targets, self.federation.target_shift)

    def train_round(
        self, state: RoundState, strategy: Strategy, standardiser: Standardiser
    ) -> RoundState:
        """Train one round and return the state after it."""
        server_round = state.server_round + 1
        shapes = federation_shapes(self.federation)
        updates: dict[int, TrainReply] = {}

        def check(node: int, reply: Message) -> None:
            update = TrainReply.from_record(reply.content, shapes=shapes)
            check_update(update, state.head, self.roster.num_examples[node])
            updates[node] = update

        requests = self._train_requests(server_round, state.head, strategy, standardiser)
        screened = self._ask(requests, check)
        self._require_quorum(len(screened.accepted), f"round {server_round}", screened)
        accepted = [screened.accepted[node] for node in self._by_name(screened.accepted)]
        arrays, _ = strategy.aggregate_train(server_round, accepted)
        if arrays is None:
            raise QuorumError(f"round {server_round}: the strategy made nothing of the replies")
        record = RoundRecord(
            server_round=server_round,
            train_loss=mean_loss([updates[node] for node in self._by_name(updates)]),
            labs=tuple(self.roster.name(node) for node in self._by_name(screened.accepted)),
            failed={self.roster.name(node): why for node, why in screened.failed.items()},
            quarantined={self.roster.name(node): why for node, why in screened.broken.items()},
        )
        self._exclude(screened.broken)
        return RoundState(
            server_round=server_round,
            head=head_arrays(arrays),
            history=(*state.history, record),
        )

    def evaluate(self, head: HeadArrays, standardiser: Standardiser) -> dict[str, ErrorSums]:
        """Return the sums of the head's errors, of each lab that has enough to share them."""
        num_targets = len(self.federation.targets)
        replies: dict[int, EvaluateReply] = {}

        def check(node: int, reply: Message) -> None:
            replies[node] = EvaluateReply.from_record(reply.content, num_targets=num_targets)

        request = EvaluateRequest(
            fingerprint=self.federation.fingerprint(), head=head, standardiser=standardiser
        )
        record = request.to_record()
        self._ask([message_to(node, EVALUATE, record) for node in self.roster.names], check)
        return {self.roster.name(node): replies[node].errors for node in self._by_name(replies)}

    def _train_requests(
        self,
        server_round: int,
        head: HeadArrays,
        strategy: Strategy,
        standardiser: Standardiser,
    ) -> list[Message]:
        messages = strategy.configure_train(
            server_round, head_record(head), train_config(self.federation.fingerprint()), self.grid
        )
        chosen = [m for m in messages if m.metadata.dst_node_id in self.roster.names]
        for message in chosen:
            message.content[STANDARDISER] = standardiser_record(standardiser)
        return chosen

    def _queries(self, message_type: str) -> list[Message]:
        record: RecordDict = query_record(self.federation.fingerprint())
        return [message_to(node, message_type, record) for node in self.roster.names]

    def _ask(self, requests: list[Message], check: Callable[[int, Message], None]) -> Screened:
        deadline = seconds(self.federation.training.round_deadline)
        replies = list(self.grid.send_and_receive(requests, timeout=deadline))
        asked = {m.metadata.message_id: m.metadata.dst_node_id for m in requests}
        return check_replies(replies, check, asked)

    def _wait_for_nodes(self) -> list[int]:
        """Wait for the first lab, up to the deadline of a round."""
        until = time.monotonic() + seconds(self.federation.training.round_deadline)
        while not (nodes := sorted(self.grid.get_node_ids())):
            if time.monotonic() > until:
                raise QuorumError("handshake: no lab has come before the deadline of a round")
            time.sleep(0.1)
        return nodes

    def _check_agreement(self, node: int, hello: HandshakeReply) -> None:
        ours, agreed = version("crossply"), self.federation.fingerprint()
        if hello.version != ours:
            raise ReplyError(f"runs crossply {hello.version}, the coordinator {ours}")
        if hello.fingerprint != agreed:
            raise ReplyError(
                f"holds the agreement {hello.fingerprint[:12]}, the coordinator {agreed[:12]}"
            )
        if list(self.roster.names.values()).count(hello.lab) > 1:
            raise ReplyError("another lab of the same name is in already")

    def _require_quorum(self, present: int, phase: str, screened: Screened | None = None) -> None:
        needed = max(1, ceil(self.federation.training.quorum * self.roster.num_accepted - 1e-9))
        if present < needed:
            missing = dict(self.roster.excluded)
            for reasons in (screened.failed, screened.broken) if screened else ():
                missing |= {self.roster.name(node): why for node, why in reasons.items()}
            listed = "; ".join(f"{name} ({why})" for name, why in missing.items())
            raise QuorumError(
                f"{phase}: {present} of {self.roster.num_accepted} labs took part and the quorum "
                f"is {needed}; missing: {listed or 'all'}"
            )

    def _exclude(self, reasons: dict[int, str]) -> None:
        for node, reason in reasons.items():
            self.roster.exclude(node, reason)

    def _by_name(self, nodes: Iterable[int]) -> list[int]:
        """Order nodes by their labs' names: sums of floats depend on the order."""
        return sorted(nodes, key=self.roster.name)
