"""The lab decides: which tasks it answers, and what may leave it.

The gate stands before and after the lab's app. What passes it outwards is written anew, as exactly
one known message, so that nothing else can ride along.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import TypeAlias

import numpy as np
from flwr.app import RecordDict

from client.lab import TRAINING_SHARE, require_cross_evaluation
from client.policy import OWN_MODEL as OWN_MODEL_METRIC
from client.policy import Policy
from client.rounding import Sums, rounded
from client.sent_log import SentLog
from common.components import PASSES
from common.counts import bucketed
from common.errors import PolicyError, RequestError
from common.federation import Federation
from common.head import federation_shapes
from common.messages import (
    CALIBRATION_SUMS,
    COMPONENTS,
    ERROR_SUMS,
    EVALUATE,
    GRAM,
    GRAM_SUMS,
    HANDSHAKE,
    OWN_MODEL,
    RELEASE,
    STATISTICS,
    TRAIN,
    TRAIN_LOSS,
    TRIAL,
    BasisRequest,
    ComponentsReply,
    EvaluateReply,
    EvaluateRequest,
    GramReply,
    HandshakeReply,
    ModelRequest,
    OwnModelReply,
    ReleaseReply,
    ReleaseRequest,
    StatisticsReply,
    Terms,
    TrainReply,
    TrainRequest,
    TrialReply,
)
from common.projection import trained_shapes

MESSAGES = (
    HANDSHAKE,
    STATISTICS,
    COMPONENTS,
    GRAM,
    TRAIN,
    EVALUATE,
    OWN_MODEL,
    TRIAL,
    RELEASE,
)

Reply: TypeAlias = HandshakeReply | Sums | ReleaseReply


class Gate:
    """What a lab answers, and what may leave it.

    Parameters
    ----------
    federation : Federation
    lab : str
        The name under which it is enrolled.
    policy : Policy
    log : SentLog
        Says how many rounds have been answered today.
    clock : callable
        Returns the time, in UTC.
    """

    def __init__(
        self,
        *,
        federation: Federation,
        lab: str,
        policy: Policy,
        log: SentLog,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._federation = federation
        self._lab = lab
        self._policy = policy
        self._log = log
        self._clock = clock
        self._needed = policy.min_specimens or federation.privacy.min_specimens

    def check_task(self, asked_id: str, message_type: str, content: RecordDict) -> None:
        """Refuse a task that is not the agreement's, or that the policy does not allow.

        A task that is asked again is no other task: `asked_id` is a hash of what it holds, taken by
        the lab, since the coordinator may give one id to two.

        Raises
        ------
        RequestError
            If the type is unknown, the agreement or the version is another, or head or
            standardiser do not have the architecture of the federation file.
        PolicyError
            If the rounds of the day are used up, or what it asks for may not leave.
        """
        shapes = federation_shapes(self._federation)
        if message_type not in MESSAGES:
            raise RequestError(f"no message of ours is called {message_type[:40]!r}")
        asked = Terms.from_record(content)
        # a handshake tells the coordinator which agreement the lab holds, whatever it asks under
        if message_type != HANDSHAKE:
            Terms.of(self._federation).require(asked)
        if message_type == TRAIN:
            TrainRequest.from_record(content, federation=self._federation)
            self._check_number(asked_id, TRAIN, self._policy.rounds_per_day)
        elif message_type == RELEASE:
            ReleaseRequest.from_record(content, federation=self._federation)
        elif message_type == EVALUATE:
            EvaluateRequest.from_record(content, shapes=shapes)
            self._require(ERROR_SUMS)
            self._check_number(asked_id, EVALUATE, self._policy.evaluations_per_day)
        elif message_type == OWN_MODEL:
            require_cross_evaluation(self._federation)
            self._require(OWN_MODEL_METRIC)
        elif message_type == TRIAL:
            require_cross_evaluation(self._federation)
            ModelRequest.from_record(content, shapes=shapes)
            self._require(ERROR_SUMS)
            self._check_number(asked_id, TRIAL, self._policy.trials_per_day)
        elif message_type in (COMPONENTS, GRAM):
            self._check_basis(BasisRequest.from_record(content, shapes=shapes))
            self._require(GRAM_SUMS)
            # another basis shows the same specimens from another side; twice, since a coordinator
            # that was killed in between may come to another one
            most = 2 * PASSES if message_type == COMPONENTS else 2
            self._check_number(asked_id, message_type, most * self._policy.evaluations_per_day)

    def check_reply(self, message_type: str, content: RecordDict) -> RecordDict:
        """Return what may leave of a reply, written anew.

        Raises
        ------
        ReplyError
            If it is not the message that the type says.
        PolicyError
            If it is about too few specimens.
        """
        reply = self._read(message_type, content)
        if isinstance(reply, HandshakeReply):
            if reply.lab != self._lab:
                raise PolicyError(f"a handshake as {reply.lab!r}; this lab is {self._lab!r}")
            named = reply.name_in_card and self._policy.name_in_card
            rounded_down = bucketed(reply.num_examples)
            return replace(reply, num_examples=rounded_down, name_in_card=named).to_record()
        if isinstance(reply, ReleaseReply):
            return reply.to_record()
        self._check_counts(reply)
        if isinstance(reply, TrainReply) and TRAIN_LOSS not in self._policy.metrics:
            reply = replace(reply, train_loss=None)
        if isinstance(reply, EvaluateReply):
            kept_back = CALIBRATION_SUMS not in self._policy.metrics
            reply = replace(
                reply,
                errors=reply.errors.to_tell(),
                baseline=reply.baseline and reply.baseline.to_tell(),
                calibration=None if kept_back else reply.calibration,
            )
        return (rounded(reply) if self._policy.round_counts else reply).to_record()

    def _read(self, message_type: str, content: RecordDict) -> Reply:
        num_targets = len(self._federation.targets)
        if message_type == HANDSHAKE:
            return HandshakeReply.from_record(content)
        if message_type == STATISTICS:
            return StatisticsReply.from_record(
                content, num_features=self._federation.num_features, num_targets=num_targets
            )
        if message_type == COMPONENTS:
            return ComponentsReply.from_record(content, num_features=self._federation.num_features)
        if message_type == GRAM:
            return GramReply.from_record(content, num_targets=num_targets)
        if message_type == TRAIN:
            return TrainReply.from_record(content, shapes=trained_shapes(self._federation))
        if message_type == OWN_MODEL:
            return OwnModelReply.from_record(content, shapes=federation_shapes(self._federation))
        if message_type == TRIAL:
            return TrialReply.from_record(content, num_targets=num_targets)
        if message_type == RELEASE:
            return ReleaseReply.from_record(content)
        return EvaluateReply.from_record(content, num_targets=num_targets)

    def _check_basis(self, request: BasisRequest) -> None:
        """Refuse what no honest coordinator asks: other weights, or directions that are none."""
        weights = request.standardiser.feature_weight
        if not np.array_equal(weights, self._federation.feature_weight):
            raise RequestError("the features' weights are not those of the agreement")
        products = request.basis.T @ request.basis
        if not np.allclose(products, np.eye(len(products)), atol=1e-6):
            raise RequestError("the directions are not orthonormal")

    def _require(self, metric: str) -> None:
        if metric not in self._policy.metrics:
            raise PolicyError(f"{metric} may not leave, by this lab's policy")

    def _check_number(self, asked_id: str, message_type: str, most: int) -> None:
        since = self._clock() - timedelta(days=1)
        others = self._log.asked(message_type, since) - {asked_id}
        if len(others) >= most:
            raise PolicyError(
                f"{len(others)} other tasks of the type {message_type} came in the last 24 hours, "
                f"and the policy allows {most}"
            )

    def _check_counts(self, reply: Sums) -> None:
        if isinstance(reply, EvaluateReply):
            counts = reply.errors.count
            if reply.calibration is not None:
                # each half, and all of them
                halves = reply.calibration.counts.sum(axis=2).ravel()
                counts = np.concatenate([counts, halves, [reply.calibration.novelty.sum()]])
        elif isinstance(reply, StatisticsReply):
            counts = np.concatenate([reply.features.count, reply.targets.count])
            counts = np.append(counts, reply.num_examples)
        elif isinstance(reply, GramReply):
            counts = np.append(reply.sums.counts, reply.num_examples)
        elif isinstance(reply, TrialReply):
            counts = reply.count
        else:
            counts = np.array([reply.num_examples])
        # the whole set was counted when the lab was opened
        share = 1.0 if isinstance(reply, EvaluateReply | TrialReply) else TRAINING_SHARE
        needed = ceil(share * self._needed)
        too_few = (counts > 0) & (counts < needed)
        if too_few.any():
            raise PolicyError(
                f"a sum over {counts[too_few].min():.0f} specimens; at least {needed} are "
                "needed for it to leave"
            )
