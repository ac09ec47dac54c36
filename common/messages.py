"""What travels: typed requests and replies, and Flower records made of them.

All keys on the wire stand here and nowhere else. Each request carries its terms: the fingerprint
of the federation file, and the coordinator's version. Reading a record checks its keys, types and
shapes, and raises one error. One file, however long: all that can leave a lab is to be read in
one place.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import version
from math import prod
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from common.counts import in_digits
from common.errors import ReplyError, RequestError
from common.federation import MOST_COMPONENTS, Federation
from common.gram import GramSums
from common.head import HeadArrays, federation_shapes, linear_shapes
from common.intervals import CalibrationSums
from common.lab_names import LAB_NAME, UNNAMED_LAB
from common.metrics import ErrorSums
from common.novelty import Novelty
from common.projection import random_projection, trained_shapes
from common.provenance import Provenance, TrainingCurve
from common.records import (
    RecordReader,
    Shapes,
    array_record,
    metric_record,
    read_only,
    record_of,
    vectors,
)
from common.standardise import Moments, Standardiser

HANDSHAKE = "query.handshake"
STATISTICS = "query.statistics"
COMPONENTS = "query.components"
GRAM = "query.gram"
TRAIN = "train"
EVALUATE = "evaluate"
OWN_MODEL = "query.own_model"
TRIAL = "query.trial"
RELEASE = "query.release"

HEAD = "arrays"
CONFIG = "config"
METRICS = "metrics"
STANDARDISER = "standardiser"
FEATURE_MOMENTS = "feature-moments"
TARGET_MOMENTS = "target-moments"
ERROR_SUMS = "error-sums"
PROJECTION = "projection"
BASIS = "basis"
PRODUCT = "product"
GRAM_SUMS = "gram-sums"
BASELINE = "baseline"
BASELINE_ERROR_SUMS = "baseline-error-sums"
NOVELTY = "novelty"
CALIBRATION_SUMS = "calibration-sums"
TRIAL_ERRORS = "trial-errors"
PROVENANCE = "provenance"
TRAINING = "training"

RUN = "run"
LABS = "labs"
MOST_LABS = 10_000

FINGERPRINT = "fingerprint"
VERSION = "version"
LAB = "lab"
NAME_IN_CARD = "name-in-card"
TARGETS = "targets"
SERVER_ROUND = "server-round"
PROXIMAL_MU = "proximal-mu"
NUM_EXAMPLES = "num-examples"
TRAIN_LOSS = "train-loss"

ERROR_NUMBER = 2
"""Flower's number for "the ClientApp raised"; the reason carries crossply's code."""

UNREADABLE_NUMBER = 1001
"""Of a reply that a grid could not read: the reason says what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Under what a request is made: an agreement, by its fingerprint, and a version of crossply."""

    fingerprint: str
    version: str

    @classmethod
    def of(cls, federation: Federation) -> Terms:
        """Return the terms of whoever holds this federation file and runs this code."""
        return cls(fingerprint=federation.fingerprint(), version=_our_version())

    def require(self, asked: Terms) -> None:
        """Raise RequestError if a request under other terms than these comes in.

        Examples
        --------
        >>> ours = Terms(fingerprint="ab12", version="0.1.0")
        >>> ours.require(Terms(fingerprint="ab12", version="9.9"))
        Traceback (most recent call last):
        ...
        common.errors.RequestError: the request is from crossply 9.9, and this lab runs 0.1.0
        """
        if asked.fingerprint != self.fingerprint:
            raise RequestError(
                f"the request is under the agreement {asked.fingerprint[:12]}, and this lab's is "
                f"{self.fingerprint[:12]}"
            )
        if asked.version != self.version:
            raise RequestError(
                f"the request is from crossply {asked.version}, and this lab runs {self.version}"
            )

    def to_config(self) -> ConfigRecord:
        """Return the Flower record that goes with every request; to `train`, Flower adds more."""
        return ConfigRecord({FINGERPRINT: self.fingerprint, VERSION: self.version})

    def to_record(self) -> RecordDict:
        """Return a request that carries its terms alone: handshake and statistics."""
        return RecordDict({CONFIG: self.to_config()})

    @classmethod
    def from_record(cls, record: RecordDict) -> Terms:
        """Read the terms of any request; raise RequestError if there are none."""
        config = RecordReader(record, RequestError).config(CONFIG)
        return cls(fingerprint=config.text(FINGERPRINT), version=config.text(VERSION))


@dataclass(frozen=True, kw_only=True)
class HandshakeReply:
    """Who a lab is: its name, version, agreement and targets, and roughly how many specimens.

    Attributes
    ----------
    name_in_card : bool
        Whether the released model may name the lab. A reply without it, such as one of another
        version, which is to be refused as that, says no.
    """

    lab: str
    version: str
    fingerprint: str
    targets: tuple[str, ...]
    num_examples: int
    name_in_card: bool = False

    def to_record(self) -> RecordDict:
        """Return the Flower record."""
        config = {
            LAB: self.lab,
            VERSION: self.version,
            FINGERPRINT: self.fingerprint,
            TARGETS: list(self.targets),
            NUM_EXAMPLES: self.num_examples,
            NAME_IN_CARD: self.name_in_card,
        }
        return RecordDict({CONFIG: ConfigRecord(cast(Any, config))})

    @classmethod
    def from_record(cls, record: RecordDict) -> HandshakeReply:
        """Read the record; raise ReplyError if it breaks the schema."""
        config = RecordReader(record, ReplyError).config(CONFIG)
        return cls(
            lab=config.text(LAB),
            version=config.text(VERSION),
            fingerprint=config.text(FINGERPRINT),
            targets=config.texts(TARGETS),
            num_examples=config.count(NUM_EXAMPLES),
            name_in_card=config.flag(NAME_IN_CARD),
        )


@dataclass(frozen=True, kw_only=True)
class StatisticsReply:
    """A lab's training specimens as sums, from which the standardiser follows."""

    num_examples: int
    features: Moments
    targets: Moments

    def to_record(self) -> RecordDict:
        """Return the Flower record."""
        return RecordDict(
            {
                FEATURE_MOMENTS: array_record(vars(self.features)),
                TARGET_MOMENTS: array_record(vars(self.targets)),
                METRICS: MetricRecord({NUM_EXAMPLES: self.num_examples}),
            }
        )

    @classmethod
    def from_record(
        cls, record: RecordDict, *, num_features: int, num_targets: int
    ) -> StatisticsReply:
        """Read the record; raise ReplyError if it breaks the schema."""
        reader = RecordReader(record, ReplyError)
        names = [field.name for field in fields(Moments)]
        # here and below what is only ever added up, of all labs at once, is not copied
        of_features, of_targets = (
            reader.arrays(key, vectors(names, length), "float64", to_write=False)
            for key, length in ((FEATURE_MOMENTS, num_features), (TARGET_MOMENTS, num_targets))
        )
        return cls(
            num_examples=reader.metrics(METRICS, {NUM_EXAMPLES}).count(NUM_EXAMPLES),
            features=Moments(**of_features),
            targets=Moments(**of_targets),
        )


@dataclass(frozen=True, kw_only=True)
class BasisRequest:
    """Directions in the space of standardised features, to multiply with or to sum along."""

    terms: Terms
    standardiser: Standardiser
    basis: np.ndarray

    def to_record(self) -> RecordDict:
        """Return the Flower record."""
        return RecordDict(
            {
                BASIS: array_record({BASIS: self.basis}),
                STANDARDISER: standardiser_record(self.standardiser),
                CONFIG: self.terms.to_config(),
            }
        )

    @classmethod
    def from_record(cls, record: RecordDict, *, shapes: Shapes) -> BasisRequest:
        """Read the record; raise RequestError if it breaks the schema."""
        reader = RecordReader(record, RequestError)
        standardiser = _read_standardiser(reader, shapes)
        num_features = len(standardiser.feature_mean)
        shape = (num_features, reader.columns(BASIS, BASIS, MOST_COMPONENTS))
        basis = reader.arrays(BASIS, {BASIS: shape}, "float64")[BASIS]
        return cls(terms=Terms.from_record(record), standardiser=standardiser, basis=basis)


@dataclass(frozen=True, kw_only=True)
class ComponentsReply:
    """A lab's features multiplied with a basis and back, of shape (n_features, n_components)."""

    num_examples: int
    product: np.ndarray

    def to_record(self) -> RecordDict:
        """Return the Flower record."""
        return RecordDict(
            {
                PRODUCT: array_record({PRODUCT: self.product}),
                METRICS: MetricRecord({NUM_EXAMPLES: self.num_examples}),
            }
        )

    @classmethod
    def from_record(
        cls, record: RecordDict, *, num_features: int, components: int | None = None
    ) -> ComponentsReply:
        """Read the record, of any number of components unless one is given.

        Raises
        ------
        ReplyError
            If it breaks the schema.
        """
        reader = RecordReader(record, ReplyError)
        found = components or reader.columns(PRODUCT, PRODUCT, MOST_COMPONENTS)
        shape = (num_features, found)
        product = reader.arrays(PRODUCT, {PRODUCT: shape}, "float64", to_write=False)[PRODUCT]
        return cls(
            num_examples=reader.metrics(METRICS, {NUM_EXAMPLES}).count(NUM_EXAMPLES),
            product=product,
        )


@dataclass(frozen=True, kw_only=True)
class GramReply:
    """Sums of products of a lab's training specimens along a basis, and with their targets."""

    num_examples: int
    sums: GramSums

    def to_record(self) -> RecordDict:
        """Return the Flower record."""
        return RecordDict(
            {
                GRAM_SUMS: array_record(vars(self.sums)),
                METRICS: MetricRecord({NUM_EXAMPLES: self.num_examples}),
            }
        )

    @classmethod
    def from_record(
        cls, record: RecordDict, *, num_targets: int, components: int | None = None
    ) -> GramReply:
        """Read the record, of any number of components unless one is given.

        Raises
        ------
        ReplyError
            If it breaks the schema.
        """
        reader = RecordReader(record, ReplyError)
        found = components or reader.columns(GRAM_SUMS, "everyone", MOST_COMPONENTS + 1) - 1
        shapes = GramSums.shapes(found, num_targets)
        return cls(
            num_examples=reader.metrics(METRICS, {NUM_EXAMPLES}).count(NUM_EXAMPLES),
            sums=GramSums(**reader.arrays(GRAM_SUMS, shapes, "float64", to_write=False)),
        )


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """The shared head, the standardiser, and which round this is.

    Attributes
    ----------
    projection : ndarray of shape (n_features, n_components), float32, or None
        What the head's inputs are made with, where the agreement says so.
    """

    terms: Terms
    server_round: int
    head: HeadArrays
    standardiser: Standardiser
    projection: np.ndarray | None = None
    proximal_mu: float = 0.0

    @classmethod
    def from_record(cls, record: RecordDict, *, federation: Federation) -> TrainRequest:
        """Read the record; raise RequestError if it breaks the schema."""
        reader = RecordReader(record, RequestError)
        config = reader.config(CONFIG)
        return cls(
            terms=Terms.from_record(record),
            server_round=config.count(SERVER_ROUND),
            # whoever trains it trains a copy
            head=reader.arrays(HEAD, trained_shapes(federation), "float32", to_write=False),
            standardiser=_read_standardiser(reader, federation_shapes(federation)),
            projection=_read_projection(reader, federation),
            proximal_mu=config.number(PROXIMAL_MU, default=0.0),
        )


@dataclass(frozen=True, kw_only=True)
class TrainReply:
    """A lab's trained head, and how many specimens it was trained on.

    Attributes
    ----------
    train_loss : float or None
        None from a lab whose policy keeps it back.
    """

    head: HeadArrays
    num_examples: int
    train_loss: float | None

    def to_record(self) -> RecordDict:
        """Return the Flower record."""
        metrics: dict[str, int | float] = {NUM_EXAMPLES: self.num_examples}
        if self.train_loss is not None:
            metrics[TRAIN_LOSS] = self.train_loss
        return record_of({HEAD: array_record(self.head), METRICS: metric_record(metrics)})

    def to_average(self) -> RecordDict:
        """Return what a strategy sees of it: to be read alone, and without the loss."""
        metrics = metric_record({NUM_EXAMPLES: self.num_examples})
        return read_only({HEAD: array_record(self.head), METRICS: metrics})

    @classmethod
    def from_record(cls, record: RecordDict, *, shapes: Shapes) -> TrainReply:
        """Read the record; raise ReplyError if it breaks the schema."""
        reader = RecordReader(record, ReplyError)
        metrics = reader.metrics(METRICS, {NUM_EXAMPLES}, optional={TRAIN_LOSS})
        return cls(
            head=reader.arrays(HEAD, shapes, "float32", to_write=False),
            num_examples=metrics.count(NUM_EXAMPLES),
            train_loss=metrics.number(TRAIN_LOSS) if TRAIN_LOSS in metrics else None,
        )


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """The shared head and the standardiser: part of what is to be tried, and of what is kept."""

    terms: Terms
    head: HeadArrays
    standardiser: Standardiser

    def to_record(self) -> RecordDict:
        """Return the Flower record."""
        return RecordDict(
            {
                HEAD: array_record(self.head),
                STANDARDISER: standardiser_record(self.standardiser),
                CONFIG: self.terms.to_config(),
            }
        )

    @classmethod
    def from_record(cls, record: RecordDict, *, shapes: Shapes) -> ModelRequest:
        """Read the record; raise RequestError if it breaks the schema."""
        reader = RecordReader(record, RequestError)
        return cls(
            terms=Terms.from_record(record),
            head=reader.arrays(HEAD, shapes, "float32"),
            standardiser=_read_standardiser(reader, shapes),
        )


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest:
    """The shared model, and what is to be tried beside it on the same held-out specimens.

    One request for all, since a lab answers about few different heads a day.

    Attributes
    ----------
    model : ModelRequest
    baseline : mapping of name to ndarray, optional
        The linear head of ridge regression.
    novelty : Novelty, optional
    """

    model: ModelRequest
    baseline: HeadArrays | None = None
    novelty: Novelty | None = None

    def to_record(self) -> RecordDict:
        """Return the Flower record."""
        record = self.model.to_record()
        if self.baseline is not None:
            record[BASELINE] = array_record(self.baseline)
        if self.novelty is not None:
            record[NOVELTY] = array_record(self.novelty.arrays())
        return record

    @classmethod
    def from_record(cls, record: RecordDict, *, shapes: Shapes) -> EvaluateRequest:
        """Read the record; raise RequestError if it breaks the schema."""
        reader = RecordReader(record, RequestError)
        model = ModelRequest.from_record(record, shapes=shapes)
        num_features = len(model.standardiser.feature_mean)
        num_targets = len(model.standardiser.target_mean)
        return cls(
            model=model,
            baseline=_read_baseline(record, reader, num_features, num_targets),
            novelty=_read_novelty(record, reader, num_features),
        )


@dataclass(frozen=True, kw_only=True)
class EvaluateReply:
    """Sums of errors on a lab's held-out specimens, and counts that intervals follow from.

    Attributes
    ----------
    errors : ErrorSums
        Of the shared head.
    baseline : ErrorSums or None
        Of the baseline, where one came along.
    calibration : CalibrationSums or None
        None from a lab whose policy keeps it back.
    """

    num_examples: int
    errors: ErrorSums
    baseline: ErrorSums | None = None
    calibration: CalibrationSums | None = None

    def to_record(self) -> RecordDict:
        """Return the Flower record."""
        record = RecordDict(
            {
                ERROR_SUMS: array_record(vars(self.errors)),
                METRICS: MetricRecord({NUM_EXAMPLES: self.num_examples}),
            }
        )
        if self.baseline is not None:
            record[BASELINE_ERROR_SUMS] = array_record(vars(self.baseline))
        if self.calibration is not None:
            record[CALIBRATION_SUMS] = array_record(vars(self.calibration))
        return record

    @classmethod
    def from_record(cls, record: RecordDict, *, num_targets: int) -> EvaluateReply:
        """Read the record; raise ReplyError if it breaks the schema."""
        reader = RecordReader(record, ReplyError)
        return cls(
            num_examples=reader.metrics(METRICS, {NUM_EXAMPLES}).count(NUM_EXAMPLES),
            errors=_read_errors(reader, ERROR_SUMS, num_targets),
            baseline=(
                _read_errors(reader, BASELINE_ERROR_SUMS, num_targets)
                if BASELINE_ERROR_SUMS in record
                else None
            ),
            calibration=_read_calibration(record, reader, num_targets),
        )


@dataclass(frozen=True, kw_only=True)
class OwnModelReply:
    """The head that a lab has trained on its own specimens alone, with its own standardiser."""

    num_examples: int
    head: HeadArrays
    standardiser: Standardiser

    def to_record(self) -> RecordDict:
        """Return the Flower record."""
        return RecordDict(
            {
                HEAD: array_record(self.head),
                STANDARDISER: standardiser_record(self.standardiser),
                METRICS: MetricRecord({NUM_EXAMPLES: self.num_examples}),
            }
        )

    @classmethod
    def from_record(cls, record: RecordDict, *, shapes: Shapes) -> OwnModelReply:
        """Read the record; raise ReplyError if it breaks the schema."""
        reader = RecordReader(record, ReplyError)
        return cls(
            num_examples=reader.metrics(METRICS, {NUM_EXAMPLES}).count(NUM_EXAMPLES),
            head=reader.arrays(HEAD, shapes, "float32"),
            standardiser=_read_standardiser(reader, shapes),
        )


@dataclass(frozen=True, kw_only=True)
class TrialReply:
    """How large the errors of a lab's own head are on another lab's held-out specimens.

    Attributes
    ----------
    count : ndarray of shape (n_targets,)
        Specimens; 0 for a target that is not told of.
    error : ndarray of shape (n_targets,)
        Mean absolute error in the target's unit; it leaves with two digits.
    """

    count: np.ndarray
    error: np.ndarray

    def to_record(self) -> RecordDict:
        """Return the Flower record."""
        told = {"count": self.count, "error": in_digits(self.error, 2)}
        return RecordDict({TRIAL_ERRORS: array_record(told)})

    @classmethod
    def from_record(cls, record: RecordDict, *, num_targets: int) -> TrialReply:
        """Read the record; raise ReplyError if it breaks the schema."""
        expected = vectors(("count", "error"), num_targets)
        arrays = RecordReader(record, ReplyError).arrays(TRIAL_ERRORS, expected, "float64")
        if any((array < 0).any() for array in arrays.values()):
            raise ReplyError(f"{TRIAL_ERRORS}: holds a number below zero")
        return cls(**arrays)


@dataclass(frozen=True, kw_only=True)
class ReleaseRequest:
    """The model to be kept, and all that its folder is made of beside the agreement.

    Attributes
    ----------
    model : ModelRequest
    provenance : Provenance
        Sums over labs; by lab, names of those that let it, rounded numbers of specimens, and how
        ridge regression over the others does there; by round, the mean loss.
    novelty : Novelty, optional
    baseline : mapping of name to ndarray, optional
        The linear head of ridge regression, for the lab's own report.
    """

    model: ModelRequest
    provenance: Provenance
    novelty: Novelty | None = None
    baseline: HeadArrays | None = None

    def to_record(self) -> RecordDict:
        """Return the Flower record."""
        told, record = self.provenance, self.model.to_record()
        arrays = {name: getattr(told, name) for name in Provenance.shapes(0, 0)}
        record[PROVENANCE] = array_record(arrays)
        config = {**self.model.terms.to_config(), LABS: list(told.labs)}
        record[CONFIG] = ConfigRecord(cast(Any, config))
        for key, errors in ((ERROR_SUMS, told.errors), (BASELINE_ERROR_SUMS, told.baseline)):
            if errors is not None:
                record[key] = array_record(vars(errors))
        if told.calibration is not None:
            record[CALIBRATION_SUMS] = array_record(vars(told.calibration))
        if told.training is not None:
            record[TRAINING] = array_record(vars(told.training))
        if self.novelty is not None:
            record[NOVELTY] = array_record(self.novelty.arrays())
        if self.baseline is not None:
            record[BASELINE] = array_record(self.baseline)
        return record

    @classmethod
    def from_record(cls, record: RecordDict, *, federation: Federation) -> ReleaseRequest:
        """Read the record; raise RequestError if it breaks the schema."""
        reader = RecordReader(record, RequestError)
        model = ModelRequest.from_record(record, shapes=federation_shapes(federation))
        labs = reader.config(CONFIG).names(LABS, MOST_LABS)
        num_features = len(model.standardiser.feature_mean)
        num_targets = len(model.standardiser.target_mean)
        expected = Provenance.shapes(len(labs), num_targets)
        arrays = reader.arrays(PROVENANCE, expected, "float64")
        if any(array.min(initial=0.0) < 0 for array in arrays.values()):
            raise RequestError(f"{PROVENANCE}: holds a number below zero")
        errors, baseline = (
            _read_errors(reader, key, num_targets) if key in record else None
            for key in (ERROR_SUMS, BASELINE_ERROR_SUMS)
        )
        return cls(
            model=model,
            provenance=Provenance(
                labs=labs,
                errors=errors,
                baseline=baseline,
                calibration=_read_calibration(record, reader, num_targets),
                training=_read_training(record, reader, federation.training.rounds),
                **arrays,
            ),
            novelty=_read_novelty(record, reader, num_features),
            baseline=_read_baseline(record, reader, num_features, num_targets),
        )


@dataclass(frozen=True, kw_only=True)
class ReleaseReply:
    """A lab says that it has kept the model, and under which agreement."""

    fingerprint: str

    def to_record(self) -> RecordDict:
        """Return the Flower record."""
        return RecordDict({CONFIG: ConfigRecord({FINGERPRINT: self.fingerprint})})

    @classmethod
    def from_record(cls, record: RecordDict) -> ReleaseReply:
        """Read the record; raise ReplyError if it breaks the schema."""
        return cls(fingerprint=RecordReader(record, ReplyError).config(CONFIG).text(FINGERPRINT))


def require_enrolled_names(record: RecordDict) -> None:
    """Require that labs' names in a request to keep a model are such as enrolment gives, or none.

    They stand in the model's card, which people at the lab read: no place for a coordinator's text.
    Virtual labs, and those on Flower's engine, have other names.

    Raises
    ------
    RequestError
        If there is no list of names, or if one is neither a lab's nor of an unnamed lab.
    """
    labs = RecordReader(record, RequestError).config(CONFIG).names(LABS, MOST_LABS)
    wrong = sum(not (LAB_NAME.fullmatch(name) or UNNAMED_LAB.fullmatch(name)) for name in labs)
    if wrong:
        raise RequestError(f"{LABS}: {wrong} of {len(labs)} are no names of enrolled labs")


@cache
def _our_version() -> str:
    return version("crossply")


def max_message_bytes(federation: Federation) -> int:
    """Return a size that no message between this federation's labs and coordinator exceeds.

    Twice the head in float32, sums, standardisers and a basis (or a projection, or the fewer
    directions of novelty) in float64, and two megabytes around them, which hold the names of
    `MOST_LABS` labs.
    """
    num_features, num_targets = federation.num_features, len(federation.targets)
    head = sum(4 * prod(shape) for shape in federation_shapes(federation).values())
    vectors = 8 * (num_features + num_targets)
    components = min(MOST_COMPONENTS, num_features)
    basis = 8 * num_features * components
    gram = sum(8 * prod(shape) for shape in GramSums.shapes(components, num_targets).values())
    calibration = sum(8 * prod(shape) for shape in CalibrationSums.shapes(num_targets).values())
    of_labs = sum(8 * prod(shape) for shape in Provenance.shapes(MOST_LABS, num_targets).values())
    of_rounds = 16 * federation.training.rounds
    told = calibration + of_labs + of_rounds
    return 2 * head + 16 * vectors + max(basis, gram) + told + 2_000_000


def head_record(head: HeadArrays) -> ArrayRecord:
    """Return a head as the Flower record that strategies average."""
    return array_record(head)


def head_arrays(record: ArrayRecord) -> HeadArrays:
    """Return a strategy's result as a head; some strategies compute in float64."""
    return {name: array.numpy().astype(np.float32) for name, array in record.items()}


def standardiser_record(standardiser: Standardiser) -> ArrayRecord:
    """Return a standardiser as a Flower record."""
    return array_record(vars(standardiser))


def message_to(node_id: int, message_type: str, record: RecordDict) -> Message:
    """Return a message to one node."""
    return Message(record, dst_node_id=node_id, message_type=message_type)


def _read_standardiser(reader: RecordReader, shapes: Shapes) -> Standardiser:
    num_features = next(iter(shapes.values()))[1]
    num_targets = list(shapes.values())[-1][0]
    expected = {
        **vectors(("feature_mean", "feature_scale", "feature_weight"), num_features),
        **vectors(("target_mean", "target_scale"), num_targets),
    }
    return Standardiser(**reader.arrays(STANDARDISER, expected, "float64"))


def training_records(
    standardiser: Standardiser, projection: np.ndarray | None, federation: Federation
) -> dict[str, ArrayRecord]:
    """Return what a request to train carries beside the head; everybody draws a random projection.

    Parameters
    ----------
    standardiser : Standardiser
    projection : ndarray of shape (n_features, n_components), float32, or None
    federation : Federation
    """
    records = {STANDARDISER: standardiser_record(standardiser)}
    if projection is not None and federation.head.projection == "pca":
        records[PROJECTION] = array_record({PROJECTION: projection})
    return records


def _read_projection(reader: RecordReader, federation: Federation) -> np.ndarray | None:
    if federation.head.projection == "none":
        return None
    if federation.head.projection == "random":
        return random_projection(federation)
    shape = (federation.num_features, federation.head.num_components)
    return reader.arrays(PROJECTION, {PROJECTION: shape}, "float32", to_write=False)[PROJECTION]


def _read_novelty(record: RecordDict, reader: RecordReader, num_features: int) -> Novelty | None:
    if NOVELTY not in record:
        return None
    directions = reader.columns(NOVELTY, "directions", MOST_COMPONENTS)
    expected = Novelty.shapes(num_features, directions)
    return Novelty.from_arrays(reader.arrays(NOVELTY, expected, "float64"))


def _read_baseline(
    record: RecordDict, reader: RecordReader, num_features: int, num_targets: int
) -> HeadArrays | None:
    if BASELINE not in record:
        return None
    return reader.arrays(BASELINE, linear_shapes(num_features, num_targets), "float32")


def _read_errors(reader: RecordReader, key: str, num_targets: int) -> ErrorSums:
    sums = vectors([field.name for field in fields(ErrorSums)], num_targets)
    return ErrorSums(**reader.arrays(key, sums, "float64"))


def _read_calibration(
    record: RecordDict, reader: RecordReader, num_targets: int
) -> CalibrationSums | None:
    if CALIBRATION_SUMS not in record:
        return None
    expected = CalibrationSums.shapes(num_targets)
    return CalibrationSums(**reader.arrays(CALIBRATION_SUMS, expected, "float64"))


def _read_training(
    record: RecordDict, reader: RecordReader, num_rounds: int
) -> TrainingCurve | None:
    if TRAINING not in record:
        return None
    expected = TrainingCurve.shapes(num_rounds)
    curve = TrainingCurve(**reader.arrays(TRAINING, expected, "float64", has_gaps=True))
    missing = curve.num_missing
    if not ((missing >= 0) & (missing <= MOST_LABS) & (missing == np.floor(missing))).all():
        raise RequestError(f"{TRAINING}: a number of labs is none from 0 to {MOST_LABS}")
    return curve
