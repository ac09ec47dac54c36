"""The phases of a run, one method each: ask the labs, screen what they say, sum it up."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
from flwr.app import Message

from common.errors import NOT_CONNECTED, ReplyError
from common.head import HeadArrays
from common.messages import (
    EVALUATE,
    HANDSHAKE,
    RELEASE,
    STATISTICS,
    EvaluateReply,
    EvaluateRequest,
    HandshakeReply,
    ModelRequest,
    ReleaseReply,
    ReleaseRequest,
    StatisticsReply,
    message_to,
)
from common.release import Release
from common.standardise import Standardiser
from server.cross_evaluation import CrossEvaluation
from server.evidence import Evaluation, Products
from server.product_phases import ProductPhases
from server.screening import check_statistics, check_terms
from server.screening_errors import check_errors
from server.state import RoundRecord, RoundState
from server.training_phase import TrainingPhase


class Coordinator(TrainingPhase, ProductPhases, CrossEvaluation):
    """Takes the labs on a grid through the phases of a run, in the order of its methods.

    Each phase raises QuorumError, naming those that are missing, if too few labs take part; it may
    then be run again.
    """

    def shake_hands(self) -> None:
        """Let in the labs that hold the same agreement and version; the others are out by name.

        A quorum of those that are enrolled is needed. Where none are, it is one of the nodes that
        are there and not refused: a stranger's node is no lab of ours that is missing. Run again,
        it forgets who was there before.
        """
        enrolled = self.roster.enrolled
        nodes = sorted(self.grid.get_node_ids()) if enrolled else self._wait_for_nodes()
        self.roster.expect({*nodes, *enrolled}, self.revoked())

        def check(node: int, reply: Message) -> None:
            hello = HandshakeReply.from_record(reply.content)
            self._check_name(node, hello)
            self.roster.names[node] = hello.lab
            self.roster.buckets[node] = hello.num_examples
            self._check_agreement(hello)
            if hello.name_in_card:
                self.roster.named_in_card.append(hello.lab)

        record = self._terms.to_record()
        there = [node for node in nodes if node in self.roster.accepted]
        absent = dict.fromkeys(set(self.roster.accepted) - set(there), NOT_CONNECTED)
        screened = self._ask([message_to(node, HANDSHAKE, record) for node in there], check)
        if not enrolled:
            self.roster.accepted = [n for n in self.roster.accepted if n not in screened.broken]
        missing = replace(screened, failed=screened.failed | absent)
        self._require_quorum(len(screened.accepted), "handshake", missing)
        self.roster.exclude(screened.broken | screened.failed)
        self.roster.exclude(dict.fromkeys(absent, "not there when the run began"))
        self.roster.accepted = sorted(self.roster.names)

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
        self.roster.standardised = list(self.roster.in_order(summed))
        first, *others = [replies[node] for node in summed]
        return Standardiser.from_moments(
            sum((reply.features for reply in others), start=first.features),
            sum((reply.targets for reply in others), start=first.targets),
            feature_shift=self.federation.feature_shift,
            feature_weight=self.federation.feature_weight,
            target_shift=self.federation.target_shift,
        )

    def ridge_round(self, standardiser: Standardiser) -> tuple[RoundState, Products]:
        """Solve ridge regression over all labs; return the state after this, the only round."""
        out = dict(self.roster.excluded)
        products = self.sum_products(standardiser)
        sent = set(products.of_labs) if products else set()
        missing = {
            lab: "no sums of products" for lab in self.roster.names.values() if lab not in sent
        }
        excluded = self.roster.excluded
        quarantined = {lab: why for lab, why in excluded.items() if lab not in out}
        self.roster.require_quorum(
            len(sent), self.federation.training.quorum, "round 1", missing | excluded
        )
        assert products is not None  # a quorum is at least one lab
        errors = products.ridge.mean_square
        known = errors[np.isfinite(errors)]
        record = RoundRecord(
            server_round=1,
            train_loss=float(known.mean()) if known.size else float("nan"),
            labs=tuple(products.of_labs),
            failed=missing,
            quarantined=quarantined,
            out=tuple(sorted(out)),
        )
        return RoundState(server_round=1, head=products.baseline, history=(record,)), products

    def evaluate(
        self, head: HeadArrays, standardiser: Standardiser, products: Products | None
    ) -> Evaluation:
        """Try the head, and the baseline beside it, on the held-out specimens of every lab."""
        num_targets = len(self.federation.targets)
        replies: dict[int, EvaluateReply] = {}

        def check(node: int, reply: Message) -> None:
            evaluation = EvaluateReply.from_record(reply.content, num_targets=num_targets)
            check_errors(
                evaluation, self.roster.num_examples[node], self.federation, self.held_out_one_in
            )
            replies[node] = evaluation

        record = EvaluateRequest(
            model=ModelRequest(terms=self._terms, head=head, standardiser=standardiser),
            baseline=products.baseline if products else None,
            novelty=products.novelty if products else None,
        ).to_record()
        requests = [message_to(node, EVALUATE, record) for node in self.roster.names]
        screened = self._ask(requests, check)
        self._require_answers(len(requests), "evaluation", screened)
        self.roster.exclude(screened.broken)
        found = dict(sorted(self.roster.named(replies).items()))
        return Evaluation(
            errors={lab: reply.errors for lab, reply in found.items()},
            baseline={lab: reply.baseline for lab, reply in found.items() if reply.baseline},
            calibration={
                lab: reply.calibration for lab, reply in found.items() if reply.calibration
            },
        )

    def release(self, release: Release, labs: Collection[str]) -> tuple[str, ...]:
        """Hand the model to these labs, and return those that say that they have kept it.

        A lab that is away stays without it, and costs the others nothing: there is no quorum.
        """
        kept: list[int] = []

        def check(node: int, reply: Message) -> None:
            if ReleaseReply.from_record(reply.content).fingerprint != self._terms.fingerprint:
                raise ReplyError("has kept the model of another agreement")
            kept.append(node)

        model = ModelRequest(
            terms=self._terms, head=release.model.head, standardiser=release.model.standardiser
        )
        record = ReleaseRequest(
            model=model,
            provenance=release.provenance,
            novelty=release.novelty,
            baseline=release.baseline,
        ).to_record()
        names, waiting = self.roster.in_order(self.roster.names), set(labs)
        nodes = zip(self.roster.names, names, strict=True)
        asked = [message_to(node, RELEASE, record) for node, name in nodes if name in waiting]
        self._ask(asked, check)
        return tuple(sorted(self.roster.in_order(kept)))

    def _check_name(self, node: int, hello: HandshakeReply) -> None:
        enrolled = self.roster.enrolled.get(node, hello.lab)
        if hello.lab != enrolled:
            raise ReplyError(f"calls itself otherwise than its certificate, which says {enrolled}")

    def _check_agreement(self, hello: HandshakeReply) -> None:
        check_terms(hello, self._terms)
        if list(self.roster.names.values()).count(hello.lab) > 1:
            raise ReplyError("another lab of the same name is in already")
