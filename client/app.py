"""The Flower ClientApp of a lab: message -> typed request -> one pure function -> typed reply.

Whatever goes wrong at the lab leaves it as a code; the text stays in the lab's own log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, wraps
from pathlib import Path
from typing import TypeAlias

import numpy as np
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from client.alone import train_own_model
from client.evaluation import calibrate, evaluate
from client.keeping import judge_kept, keep
from client.lab import Lab, require_cross_evaluation
from client.opening import open_lab
from client.training import TrainingPlan, plan_for, train_head
from common.components import product_with
from common.counts import bucketed
from common.errors import INTERNAL, ConfigurationError, CrossplyError, RequestError
from common.federation import load_federation
from common.gram import GramSums
from common.head import federation_shapes
from common.messages import (
    COMPONENTS,
    ERROR_NUMBER,
    GRAM,
    HANDSHAKE,
    OWN_MODEL,
    RELEASE,
    STATISTICS,
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
from common.projection import projected
from common.seeds import seed_for
from common.standardise import Moments
from common.threads import one_thread

log = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[Lab, RecordDict], RecordDict]


def shake_hands(lab: Lab, record: RecordDict) -> RecordDict:
    """Say who the lab is and which agreement it holds; the coordinator compares."""
    targets = zip(lab.federation.targets, lab.shared_targets, strict=True)
    ours = Terms.of(lab.federation)
    agreed = Terms.from_record(record).fingerprint == ours.fingerprint
    names = [name for name, shared in targets if agreed and shared]
    return HandshakeReply(
        lab=lab.name,
        version=ours.version,
        fingerprint=ours.fingerprint,
        targets=tuple(names),
        # to a stranger, what every lab has: at least one specimen
        num_examples=bucketed(len(lab.training)) if agreed else 1,
        name_in_card=agreed and lab.name_in_card,
    ).to_record()


def sum_statistics(lab: Lab, record: RecordDict) -> RecordDict:
    """Sum the lab's training specimens for the shared standardiser."""
    Terms.of(lab.federation).require(Terms.from_record(record))
    specimens = lab.training
    return StatisticsReply(
        num_examples=len(specimens),
        features=Moments.of(specimens.features, lab.federation.feature_shift),
        targets=Moments.of(lab.shared_training_targets, lab.federation.target_shift),
    ).to_record()


def train(lab: Lab, record: RecordDict) -> RecordDict:
    """Train the shared head on the lab's training specimens."""
    request = read_train_request(lab, record)
    specimens = lab.standardised(request.standardiser)
    head, loss = train_head(
        request.head,
        projected(specimens.features, request.projection),
        specimens.targets,
        plan_of_round(lab, request),
    )
    return TrainReply(head=head, num_examples=len(lab.training), train_loss=loss).to_record()


def read_train_request(lab: Lab, record: RecordDict) -> TrainRequest:
    """Read what a lab is asked to train; raise RequestError if it is not under its terms."""
    request = TrainRequest.from_record(record, federation=lab.federation)
    Terms.of(lab.federation).require(request.terms)
    return request


def plan_of_round(lab: Lab, request: TrainRequest) -> TrainingPlan:
    """Return how a lab trains in the round that is asked for."""
    training = lab.federation.training
    return plan_for(
        lab.federation,
        epochs=training.local_epochs,
        seed=seed_for(training.seed, "train", lab.name, request.server_round),
        proximal_mu=request.proximal_mu,
    )


def multiply_components(lab: Lab, record: RecordDict) -> RecordDict:
    """Multiply the lab's training features with a basis, for principal components of all labs."""
    request = BasisRequest.from_record(record, shapes=federation_shapes(lab.federation))
    Terms.of(lab.federation).require(request.terms)
    features = request.standardiser.features(lab.training.features)
    product = product_with(features, request.basis)
    return ComponentsReply(num_examples=len(lab.training), product=product).to_record()


def sum_products(lab: Lab, record: RecordDict) -> RecordDict:
    """Sum products of the lab's training specimens along a basis, for ridge regression."""
    request = BasisRequest.from_record(record, shapes=federation_shapes(lab.federation))
    Terms.of(lab.federation).require(request.terms)
    targets = request.standardiser.targets(lab.shared_training_targets)
    coordinates = request.standardiser.features(lab.training.features) @ request.basis
    sums = GramSums.of(coordinates, targets, lab.counted)
    return GramReply(num_examples=len(lab.training), sums=sums).to_record()


def evaluate_held_out(lab: Lab, record: RecordDict) -> RecordDict:
    """Sum the errors of the shared head on the lab's held-out specimens, and count scores."""
    request = EvaluateRequest.from_record(record, shapes=federation_shapes(lab.federation))
    model, federation = request.model, lab.federation
    Terms.of(federation).require(model.terms)
    told, standardiser = lab.told_held_out(), model.standardiser
    calibration = calibrate(model.head, standardiser, told, federation, request.novelty)
    baseline = request.baseline
    return EvaluateReply(
        num_examples=len(told),
        errors=evaluate(model.head, standardiser, told, federation),
        baseline=evaluate(baseline, standardiser, told, federation) if baseline else None,
        calibration=calibration.merged(lab.needed),
    ).to_record()


def send_own_model(lab: Lab, record: RecordDict) -> RecordDict:
    """Train a head on the lab's training specimens alone, for other labs to try."""
    Terms.of(lab.federation).require(Terms.from_record(record))
    require_cross_evaluation(lab.federation)
    specimens = lab.training
    own = train_own_model(lab.federation, specimens.features, lab.shared_training_targets, lab.name)
    return OwnModelReply(
        num_examples=len(specimens), head=own.head, standardiser=own.standardiser
    ).to_record()


def try_model(lab: Lab, record: RecordDict) -> RecordDict:
    """Try a lab's own head on this lab's held-out specimens."""
    request = ModelRequest.from_record(record, shapes=federation_shapes(lab.federation))
    Terms.of(lab.federation).require(request.terms)
    require_cross_evaluation(lab.federation)
    errors = evaluate(request.head, request.standardiser, lab.told_held_out(), lab.federation)
    return TrialReply(
        count=errors.count, error=errors.absolute / np.maximum(errors.count, 1.0)
    ).to_record()


def keep_model(lab: Lab, record: RecordDict) -> RecordDict:
    """Keep the model that a run ended with, and say so."""
    request = ReleaseRequest.from_record(record, federation=lab.federation)
    Terms.of(lab.federation).require(request.model.terms)
    if lab.model_path is not None:
        keep(request, lab, lab.model_path)
        if not lab.judges_later:
            judge_kept(lab, lab.model_path)
    return ReleaseReply(fingerprint=request.model.terms.fingerprint).to_record()


def answered(message: Message, answer: Callable[[], RecordDict]) -> Message:
    """Return the reply to a message; whatever `answer` raises becomes a code."""
    try:
        # the same bits whoever asks: sums depend on how many threads they are dealt out to
        with one_thread():
            return Message(answer(), reply_to=message)
    except RequestError as error:
        log.info("%s is refused: %s", message.metadata.message_type, error)
        return Message(Error(ERROR_NUMBER, error.code), reply_to=message)
    except CrossplyError as error:
        log.warning("%s was not answered: %s", message.metadata.message_type, error)
        return Message(Error(ERROR_NUMBER, error.code), reply_to=message)
    except Exception:
        log.exception("%s failed", message.metadata.message_type)
        return Message(Error(ERROR_NUMBER, INTERNAL), reply_to=message)


def client_app(open_lab: Callable[[Context], Lab]) -> ClientApp:
    """Return a ClientApp that answers for the lab that `open_lab` finds for its node."""
    made = ClientApp()

    def answers(handler: Handler) -> Callable[[Message, Context], Message]:
        @wraps(handler)
        def answer(message: Message, context: Context) -> Message:
            return answered(message, lambda: handler(open_lab(context), message.content))

        return answer

    made.query(HANDSHAKE.removeprefix("query."))(answers(shake_hands))
    made.query(STATISTICS.removeprefix("query."))(answers(sum_statistics))
    made.query(COMPONENTS.removeprefix("query."))(answers(multiply_components))
    made.query(GRAM.removeprefix("query."))(answers(sum_products))
    made.train()(answers(train))
    made.evaluate()(answers(evaluate_held_out))
    made.query(OWN_MODEL.removeprefix("query."))(answers(send_own_model))
    made.query(TRIAL.removeprefix("query."))(answers(try_model))
    made.query(RELEASE.removeprefix("query."))(answers(keep_model))
    return made


def open_lab_folder(context: Context) -> Lab:
    """Open the lab that a Flower node's configuration names.

    ``lab`` is the lab's folder; ``federation`` the federation file, by default the one in it;
    ``model`` the folder to keep the shared model in, if any; ``name_in_card`` whether the model's
    card may name the lab. Nobody was shown what is agreed: it does not, unless that is true.
    """
    folder, model = context.node_config.get("lab"), context.node_config.get("model")
    named = context.node_config.get("name_in_card", False)
    if not isinstance(folder, str):
        raise ConfigurationError("the node's configuration needs lab = \"the lab's folder\"")
    if not isinstance(named, bool):
        raise ConfigurationError("name_in_card in the node's configuration is true or false")
    federation_path = Path(str(context.node_config.get("federation", folder)))
    model_path = None if model is None else Path(str(model))
    return _open(Path(folder), federation_path, model_path, named)


@lru_cache(maxsize=4)
def _open(folder: Path, federation_path: Path, model_path: Path | None, named: bool) -> Lab:
    lab = open_lab(folder, load_federation(federation_path))
    return replace(lab, model_path=model_path, name_in_card=named)


app = client_app(open_lab_folder)
