"""The Flower ClientApp of a lab: message -> typed request -> one pure function -> typed reply.

Whatever goes wrong at the lab leaves it as a code; the text stays in the lab's own log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from importlib.metadata import version
from typing import TypeAlias

import numpy as np
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from client.evaluation import evaluate
from client.lab import Lab, open_lab_folder
from client.training import plan_for, train_head
from common.errors import CrossplyError, RequestError
from common.head import federation_shapes
from common.messages import (
    HANDSHAKE,
    STATISTICS,
    EvaluateReply,
    EvaluateRequest,
    HandshakeReply,
    StatisticsReply,
    TrainReply,
    TrainRequest,
    query_fingerprint,
)
from common.seeds import seed_for
from common.standardise import Moments

log = logging.getLogger(__name__)

ERROR_NUMBER = 2
"""Flower's number for "the ClientApp raised"; the reason carries crossply's code."""

Handler: TypeAlias = Callable[[Lab, RecordDict], RecordDict]


def shake_hands(lab: Lab, record: RecordDict) -> RecordDict:
    """Say who the lab is and which agreement it holds; the coordinator compares."""
    measured = np.isfinite(lab.training.targets).any(axis=0)
    names = [name for name, has in zip(lab.federation.targets, measured, strict=True) if has]
    return HandshakeReply(
        lab=lab.name,
        version=version("crossply"),
        fingerprint=lab.federation.fingerprint(),
        targets=tuple(names),
        num_examples=bucketed(len(lab.training)),
    ).to_record()


def sum_statistics(lab: Lab, record: RecordDict) -> RecordDict:
    """Sum the lab's training specimens for the shared standardiser."""
    _agree(lab, query_fingerprint(record))
    specimens = lab.training
    return StatisticsReply(
        num_examples=len(specimens),
        features=Moments.of(specimens.features, np.zeros(lab.federation.num_features)),
        targets=Moments.of(specimens.targets, lab.federation.target_shift),
    ).to_record()


def train(lab: Lab, record: RecordDict) -> RecordDict:
    """Train the shared head on the lab's training specimens."""
    request = TrainRequest.from_record(record, shapes=federation_shapes(lab.federation))
    _agree(lab, request.fingerprint)
    training = lab.federation.training
    plan = plan_for(
        lab.federation,
        epochs=training.local_epochs,
        seed=seed_for(training.seed, "train", lab.name, request.server_round),
        proximal_mu=request.proximal_mu,
    )
    head, loss = train_head(
        request.head,
        request.standardiser.features(lab.training.features),
        request.standardiser.targets(lab.training.targets),
        plan,
    )
    return TrainReply(head=head, num_examples=len(lab.training), train_loss=loss).to_record()


def evaluate_held_out(lab: Lab, record: RecordDict) -> RecordDict:
    """Sum the shared head's errors on the lab's held-out specimens."""
    request = EvaluateRequest.from_record(record, shapes=federation_shapes(lab.federation))
    _agree(lab, request.fingerprint)
    _enough(lab, len(lab.held_out), "held-out")
    errors = evaluate(request.head, request.standardiser, lab.held_out, lab.federation)
    return EvaluateReply(num_examples=len(lab.held_out), errors=errors).to_record()


def client_app(open_lab: Callable[[Context], Lab]) -> ClientApp:
    """Return a ClientApp that answers for the lab that `open_lab` finds for its node."""
    made = ClientApp()

    def answers(handler: Handler) -> Callable[[Message, Context], Message]:
        @wraps(handler)
        def answer(message: Message, context: Context) -> Message:
            try:
                reply = handler(open_lab(context), message.content)
            except RequestError as error:
                log.info("%s is refused: %s", message.metadata.message_type, error)
                return Message(Error(ERROR_NUMBER, error.code), reply_to=message)
            except CrossplyError as error:
                log.warning("%s was not answered: %s", message.metadata.message_type, error)
                return Message(Error(ERROR_NUMBER, error.code), reply_to=message)
            except Exception:
                log.exception("%s failed", message.metadata.message_type)
                return Message(Error(ERROR_NUMBER, "internal"), reply_to=message)
            return Message(reply, reply_to=message)

        return answer

    made.query(HANDSHAKE.removeprefix("query."))(answers(shake_hands))
    made.query(STATISTICS.removeprefix("query."))(answers(sum_statistics))
    made.train()(answers(train))
    made.evaluate()(answers(evaluate_held_out))
    return made


def bucketed(count: int) -> int:
    """Round a count down to 1, 2 or 5 times a power of ten, which says little about one lab.

    Examples
    --------
    >>> [bucketed(count) for count in (1, 19, 57, 480)]
    [1, 10, 50, 200]
    """
    power = int(10 ** (len(str(count)) - 1))
    leading = count // power
    return (5 if leading >= 5 else 2 if leading >= 2 else 1) * power


def _agree(lab: Lab, fingerprint: str) -> None:
    agreed = lab.federation.fingerprint()
    if fingerprint != agreed:
        raise RequestError(
            f"the request is under the agreement {fingerprint[:12]}, this lab's is {agreed[:12]}"
        )


def _enough(lab: Lab, count: int, kind: str) -> None:
    needed = lab.federation.privacy.min_specimens
    if count < needed:
        raise RequestError(
            f"{count} {kind} specimens are fewer than min_specimens = {needed}; nothing is sent"
        )


app = client_app(open_lab_folder)
