"""The lab's gate: what it answers, what may leave, and that what is rounded is still taken."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from client.gate import Gate
from client.policy import DEFAULT_POLICY, METRICS, Policy, load_policy
from client.rounding import rounded
from client.sent_log import SentLog
from common.errors import ConfigurationError, PolicyError, ReplyError, RequestError
from common.federation import Federation
from common.gram import GramSums
from common.head import federation_shapes, initial_head
from common.intervals import CalibrationSums, score_counts
from common.link_pb2 import Reply
from common.messages import (
    CALIBRATION_SUMS,
    COMPONENTS,
    ERROR_SUMS,
    EVALUATE,
    GRAM,
    GRAM_SUMS,
    HANDSHAKE,
    OWN_MODEL,
    STATISTICS,
    TRAIN,
    TRAIN_LOSS,
    TRIAL,
    BasisRequest,
    ComponentsReply,
    EvaluateReply,
    GramReply,
    HandshakeReply,
    ModelRequest,
    OwnModelReply,
    StatisticsReply,
    Terms,
    TrainReply,
    TrialReply,
)
from common.metrics import ErrorSums
from common.standardise import Moments, Standardiser
from server.screening import (
    check_gram,
    check_product,
    check_statistics,
    check_update,
)
from server.screening_errors import check_errors

FEDERATION = Federation.model_validate(
    {
        "name": "test",
        "targets": {"strength": {"unit": "MPa", "range": [0, 200]}},
        "imaging": {"scale": "fit"},
        "backbone": {"name": "resnet18"},
        "head": {"hidden": [4]},
        "privacy": {"min_specimens": 20, "cross_evaluation": True},
    }
)
SHAPES = federation_shapes(FEDERATION)
HEAD = initial_head(SHAPES, 0)
TERMS = Terms.of(FEDERATION)
OTHER = replace(TERMS, fingerprint="0" * 64)


def gate(tmp_path: Path, **policy: Any) -> Gate:
    log = SentLog(tmp_path / "sent.jsonl")
    return Gate(federation=FEDERATION, lab="celle", policy=Policy(**policy), log=log)


def statistics(size: int = 57, targets: int = 33) -> StatisticsReply:
    generator = np.random.default_rng(0)
    features = generator.gamma(2.0, 0.2, (size, FEDERATION.num_features))
    strength = generator.normal(120, 10, (size, 1))
    strength[targets:] = np.nan
    return StatisticsReply(
        num_examples=size,
        features=Moments.of(features, FEDERATION.feature_shift),
        targets=Moments.of(strength, FEDERATION.target_shift),
    )


def update(size: int = 57) -> TrainReply:
    return TrainReply(head=HEAD, num_examples=size, train_loss=0.5)


def evaluation(size: int = 25) -> EvaluateReply:
    measured = np.linspace(100, 140, size)[:, None]
    errors = ErrorSums.of(measured, measured + 3.0, FEDERATION.target_shift)
    counts = score_counts(np.full((size, 1), 1.5))
    calibration = CalibrationSums(
        counts=np.stack([counts, 0 * counts]), spreads=np.ones((2, 1)), novelty=counts[0]
    )
    return EvaluateReply(num_examples=size, errors=errors, baseline=errors, calibration=calibration)


STANDARDISER = Standardiser(
    feature_mean=np.zeros(FEDERATION.num_features),
    feature_scale=np.ones(FEDERATION.num_features),
    feature_weight=np.ones(FEDERATION.num_features),
    target_mean=np.zeros(1),
    target_scale=np.ones(1),
)


def model_request() -> ModelRequest:
    return ModelRequest(terms=TERMS, head=HEAD, standardiser=STANDARDISER)


def basis_request() -> BasisRequest:
    basis = np.eye(FEDERATION.num_features)[:, :3]
    return BasisRequest(terms=TERMS, standardiser=STANDARDISER, basis=basis)


def train_request() -> RecordDict:
    record = model_request().to_record()
    record.config_records["config"]["server-round"] = 1
    return record


def test_the_default_policy_is_what_stands_in_its_text(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(DEFAULT_POLICY)
    assert load_policy(path, FEDERATION) == Policy()
    # its names of what may leave are those of the messages
    assert METRICS == (TRAIN_LOSS, ERROR_SUMS, CALIBRATION_SUMS, GRAM_SUMS, "own-model")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("min_specimens = 19", "less than the federation's 20"),
        ('metrics = ["weights"]', "'weights' is none; choose among train-loss, error-sums"),
        ("round_count = true", "round_counts"),
        ("name_in_card = 0", "name_in_card: .*valid boolean, found 0"),
        ("rounds_per_day = 0", "rounds_per_day"),
    ],
)
def test_a_policy_that_cannot_be(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=words):
        load_policy(path, FEDERATION)


def test_tasks_of_another_agreement_type_or_architecture(tmp_path: Path) -> None:
    here = gate(tmp_path)
    here.check_task("1", STATISTICS, TERMS.to_record())
    # whoever asks under another agreement is told which one the lab holds, and nothing else
    here.check_task("1", HANDSHAKE, OTHER.to_record())
    with pytest.raises(RequestError, match="under the agreement 000000000000"):
        here.check_task("1", STATISTICS, OTHER.to_record())
    with pytest.raises(RequestError, match=r"from crossply 9\.9, and this lab runs"):
        here.check_task("1", STATISTICS, replace(TERMS, version="9.9").to_record())
    with pytest.raises(RequestError, match=r"no message of ours is called 'query\.rows'"):
        here.check_task("1", "query.rows", TERMS.to_record())
    ones = np.ones(FEDERATION.num_features)
    request = ModelRequest(
        terms=TERMS,
        head=HEAD | {"0.weight": np.zeros((5, FEDERATION.num_features), dtype=np.float32)},
        standardiser=Standardiser(
            feature_mean=ones,
            feature_scale=ones,
            feature_weight=ones,
            target_mean=ones[:1],
            target_scale=ones[:1],
        ),
    )
    with pytest.raises(RequestError, match=r"0\.weight: expected float32 of shape \(4, "):
        here.check_task("1", EVALUATE, request.to_record())


def test_nothing_rides_along_with_a_reply(tmp_path: Path) -> None:
    record = update().to_record()
    record["notes"] = ConfigRecord({"specimens": ["X-17"]})
    left = gate(tmp_path).check_reply(TRAIN, record)
    assert set(left) == {"arrays", "metrics"}
    record["more"] = MetricRecord({"strength-of-X-17": 612.5})
    with pytest.raises(ReplyError):
        gate(tmp_path).check_reply(TRAIN, record)
    with pytest.raises(ReplyError):
        gate(tmp_path).check_reply(STATISTICS, RecordDict())


def test_a_handshake_goes_out_under_the_enrolled_name_with_a_rounded_number(tmp_path: Path) -> None:
    hello = HandshakeReply(
        lab="celle", version="1", fingerprint="ab", targets=("strength",), num_examples=57
    )
    left = HandshakeReply.from_record(gate(tmp_path).check_reply(HANDSHAKE, hello.to_record()))
    assert left.num_examples == 50
    other = gate(tmp_path)
    other._lab = "dresden"
    with pytest.raises(PolicyError, match="this lab is 'dresden'"):
        other.check_reply(HANDSHAKE, hello.to_record())


@pytest.mark.parametrize(
    ("asked", "allowed", "left"),
    [(True, True, True), (True, False, False), (False, True, False)],
)
def test_a_lab_is_named_only_where_it_and_its_policy_let_it(
    tmp_path: Path, asked: bool, allowed: bool, left: bool
) -> None:
    hello = HandshakeReply(
        lab="celle",
        version="1",
        fingerprint="ab",
        targets=("strength",),
        num_examples=57,
        name_in_card=asked,
    )
    out = gate(tmp_path, name_in_card=allowed).check_reply(HANDSHAKE, hello.to_record())
    assert HandshakeReply.from_record(out).name_in_card is left
    # what is silent of it, as another version's would be, says no; what is neither is refused
    del out.config_records["config"]["name-in-card"]
    assert HandshakeReply.from_record(out).name_in_card is False
    for wrong in (1, "true", [True]):
        out.config_records["config"]["name-in-card"] = wrong
        with pytest.raises(ReplyError, match="name-in-card: expected true or false"):
            HandshakeReply.from_record(out)


def test_sums_over_too_few_specimens_stay(tmp_path: Path) -> None:
    strict = gate(tmp_path, min_specimens=30)
    with pytest.raises(PolicyError, match="a sum over 25 specimens; at least 30"):
        strict.check_reply(EVALUATE, evaluation(25).to_record())
    with pytest.raises(PolicyError, match="a sum over 14 specimens"):
        strict.check_reply(TRAIN, update(14).to_record())
    with pytest.raises(PolicyError, match="a sum over 3 specimens"):
        strict.check_reply(STATISTICS, statistics(57, targets=3).to_record())
    # a target that the lab does not share is a sum over none
    strict.check_reply(STATISTICS, statistics(57, targets=0).to_record())


def test_counts_over_a_half_of_too_few_specimens_stay(tmp_path: Path) -> None:
    whole = evaluation(45)
    assert whole.calibration is not None
    counts = score_counts(np.full((45, 1), 1.5))
    halves = replace(whole.calibration, counts=np.stack([counts * 40 / 45, counts * 5 / 45]))
    here = gate(tmp_path)
    with pytest.raises(PolicyError, match="a sum over 5 specimens"):
        here.check_reply(EVALUATE, replace(whole, calibration=halves).to_record())
    told = replace(whole, calibration=halves.merged(20)).to_record()
    here.check_reply(EVALUATE, told)


def test_a_basis_that_no_honest_coordinator_asks_for(tmp_path: Path) -> None:
    here, asked = gate(tmp_path), basis_request()
    with pytest.raises(RequestError, match="not orthonormal"):
        here.check_task("1", GRAM, replace(asked, basis=2 * asked.basis).to_record())
    weighed = replace(STANDARDISER, feature_weight=2 * STANDARDISER.feature_weight)
    with pytest.raises(RequestError, match="weights are not those"):
        here.check_task("1", COMPONENTS, replace(asked, standardiser=weighed).to_record())


def test_what_the_policy_keeps_back(tmp_path: Path) -> None:
    quiet = gate(tmp_path, metrics=())
    left = TrainReply.from_record(quiet.check_reply(TRAIN, update().to_record()), shapes=SHAPES)
    assert left.train_loss is None
    check_update(left, HEAD, 57)
    ones = np.ones(FEDERATION.num_features)
    request = ModelRequest(
        terms=TERMS,
        head=HEAD,
        standardiser=Standardiser(
            feature_mean=ones,
            feature_scale=ones,
            feature_weight=ones,
            target_mean=ones[:1],
            target_scale=ones[:1],
        ),
    )
    with pytest.raises(PolicyError, match="error-sums may not leave"):
        quiet.check_task("1", EVALUATE, request.to_record())
    for kind in (COMPONENTS, GRAM):
        with pytest.raises(PolicyError, match="gram-sums may not leave"):
            quiet.check_task("1", kind, basis_request().to_record())
    with pytest.raises(PolicyError, match="error-sums may not leave"):
        quiet.check_task("1", TRIAL, request.to_record())
    with pytest.raises(PolicyError, match="own-model may not leave"):
        quiet.check_task("1", OWN_MODEL, TERMS.to_record())
    left_of = quiet.check_reply(EVALUATE, evaluation().to_record())
    assert EvaluateReply.from_record(left_of, num_targets=1).calibration is None


def test_sums_of_errors_leave_with_three_digits_and_are_sums_that_can_be(tmp_path: Path) -> None:
    for size, off in itertools.product((20, 23, 57), (1.2345, 4.4449, 9.87654)):
        measured = np.linspace(100, 140, size)[:, None]
        errors = ErrorSums.of(measured, measured + off, FEDERATION.target_shift)
        asked = EvaluateReply(num_examples=size, errors=errors, baseline=errors).to_record()
        left = gate(tmp_path).check_reply(EVALUATE, asked)
        told = EvaluateReply.from_record(left, num_targets=1)
        assert told.baseline is not None
        for sums in (told.errors, told.baseline):
            assert sums.absolute[0] == float(f"{size * off:.3g}") != errors.absolute[0]
            assert sums.metrics(0)["mae"] == pytest.approx(off, rel=5e-3)
            assert sums.metrics(0)["rmse"] == pytest.approx(off, rel=5e-3)
            np.testing.assert_array_equal(sums.measured_squared, errors.measured_squared)
        check_errors(told, 4 * size, FEDERATION)


def test_trials_of_labs_own_heads_leave_with_two_digits_and_of_enough_specimens(
    tmp_path: Path,
) -> None:
    def trial(count: float) -> RecordDict:
        return TrialReply(count=np.array([float(count)]), error=np.array([35.449])).to_record()

    left = gate(tmp_path).check_reply(TRIAL, trial(27))
    told = TrialReply.from_record(left, num_targets=1)
    assert (told.count.tolist(), told.error.tolist()) == ([27.0], [35.0])
    left = gate(tmp_path, round_counts=True).check_reply(TRIAL, trial(27))
    assert TrialReply.from_record(left, num_targets=1).count.tolist() == [20.0]
    with pytest.raises(PolicyError, match="over 19 specimens; at least 20"):
        gate(tmp_path).check_reply(TRIAL, trial(19))
    with pytest.raises(ReplyError, match="below zero"):
        gate(tmp_path).check_reply(TRIAL, trial(-1))


def test_own_heads_are_no_matter_where_that_was_not_agreed(tmp_path: Path) -> None:
    without = FEDERATION.model_dump() | {"privacy": {"min_specimens": 20}}
    federation = Federation.model_validate(without)
    here = Gate(
        federation=federation, lab="celle", policy=Policy(), log=SentLog(tmp_path / "sent.jsonl")
    )
    terms = Terms.of(federation)
    with pytest.raises(RequestError, match="without cross_evaluation"):
        here.check_task("1", OWN_MODEL, terms.to_record())
    with pytest.raises(RequestError, match="without cross_evaluation"):
        here.check_task("1", TRIAL, replace(model_request(), terms=terms).to_record())
    gate(tmp_path).check_task("1", OWN_MODEL, TERMS.to_record())


def test_a_head_of_its_own_leaves_where_it_was_trained_on_enough(tmp_path: Path) -> None:
    def own(size: int) -> RecordDict:
        return OwnModelReply(num_examples=size, head=HEAD, standardiser=STANDARDISER).to_record()

    left = gate(tmp_path, round_counts=True).check_reply(OWN_MODEL, own(57))
    assert OwnModelReply.from_record(left, shapes=SHAPES).num_examples == 50
    with pytest.raises(PolicyError, match="over 9 specimens; at least 10"):
        gate(tmp_path).check_reply(OWN_MODEL, own(9))


def test_another_basis_shows_the_same_specimens_from_another_side(tmp_path: Path) -> None:
    log = SentLog(tmp_path / "sent.jsonl")
    here = Gate(federation=FEDERATION, lab="celle", policy=Policy(), log=log)
    record = basis_request().to_record()
    # twice what a run needs: a coordinator may be killed in between
    for asked, kind in zip("abcdef", (*[COMPONENTS] * 4, *[GRAM] * 2), strict=True):
        here.check_task(asked, kind, record)
        log.append(kind, Reply(message_id=asked), asked)
    for kind in (COMPONENTS, GRAM):
        with pytest.raises(PolicyError, match="came in the last 24 hours"):
            here.check_task("g", kind, record)


@pytest.mark.parametrize(
    ("message_type", "policy"),
    [
        (TRAIN, {"rounds_per_day": 2}),
        (EVALUATE, {"evaluations_per_day": 2}),
        (TRIAL, {"trials_per_day": 2}),
    ],
)
def test_tasks_per_day_are_counted_from_the_log(
    tmp_path: Path, message_type: str, policy: dict[str, Any]
) -> None:
    log = SentLog(tmp_path / "sent.jsonl")
    now = datetime.now(UTC)
    times = [now]
    here = Gate(
        federation=FEDERATION,
        lab="celle",
        policy=Policy(**policy),
        log=log,
        clock=lambda: times[0],
    )
    request = train_request() if message_type == TRAIN else model_request().to_record()
    here.check_task("0", message_type, request)
    log.append(message_type, Reply(message_id="0"), "0")
    # that something failed tells of the data too
    log.append(message_type, Reply(message_id="1", error="diverged"), "1")
    with pytest.raises(PolicyError, match=f"2 other tasks of the type {message_type} came in the"):
        here.check_task("2", message_type, request)
    # one that is asked again is no other task
    here.check_task("1", message_type, request)
    times[0] = now + timedelta(hours=25)
    here.check_task("2", message_type, request)


def test_rounded_counts_pass_the_coordinators_checks_and_keep_means_and_spreads() -> None:
    plain, sums = statistics(), rounded(statistics())
    assert isinstance(sums, StatisticsReply)
    assert (sums.num_examples, sums.targets.count[0]) == (50, 20)
    check_statistics(sums, 50, FEDERATION)
    for left, right in ((plain.features, sums.features), (plain.targets, sums.targets)):
        np.testing.assert_allclose(left.total / left.count, right.total / right.count)
        np.testing.assert_allclose(left.squares / left.count, right.squares / right.count)
    trained = rounded(update())
    assert isinstance(trained, TrainReply)
    check_update(trained, HEAD, sums.num_examples)
    told = rounded(evaluation())
    assert isinstance(told, EvaluateReply)
    check_errors(told, sums.num_examples, FEDERATION)
    assert told.errors.metrics(0)["mae"] == pytest.approx(3.0)
    assert told.calibration is None


def test_rounded_products_pass_the_coordinators_checks_and_keep_means() -> None:
    targets = np.full((57, 1), np.nan)
    targets[:33, 0] = np.linspace(-1, 1, 33)
    coordinates = np.random.default_rng(0).normal(size=(57, 3))
    plain = GramReply(num_examples=57, sums=GramSums.of(coordinates, targets))
    counted, told = rounded(statistics()), rounded(plain)
    assert isinstance(counted, StatisticsReply) and isinstance(told, GramReply)
    check_gram(told, counted.num_examples, counted.targets.count, FEDERATION, STANDARDISER)
    for before, after in zip(
        plain.sums.mean_and_covariance(), told.sums.mean_and_covariance(), strict=True
    ):
        np.testing.assert_allclose(before, after)
    product = ComponentsReply(num_examples=57, product=np.ones((FEDERATION.num_features, 3)))
    less = rounded(product)
    assert isinstance(less, ComponentsReply)
    check_product(less, 50, FEDERATION)
    assert less.product[0, 0] == pytest.approx(50 / 57)
