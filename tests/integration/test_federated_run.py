"""The coordinator's rounds over InProcessGrid, with labs that behave and labs that do not."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Error, Message, MetricRecord, UserConfig
from flwr.clientapp import ClientApp
from sklearn.linear_model import Ridge

from client.app import client_app
from client.evaluation import predict_in_units
from client.lab import Lab, split_lab
from client.specimens import Specimens
from client.training import plan_for, train_head
from client.uncertainty import spread_in_units
from common.errors import QuorumError
from common.federation import STRATEGY_OPTIONS, Federation
from common.head import federation_shapes, initial_head
from common.head import predict as head_outputs
from common.intervals import Intervals, score_counts
from common.messages import UNREADABLE_NUMBER
from common.seeds import seed_for
from common.standardise import Standardiser
from server import rounds
from server.rounds import RunOptions, Watcher, run_federation
from server.state import RunResult
from simulation.grid import InProcessGrid, over_the_wire

SIZES = {"aachen": 30, "bremen": 20, "celle": 25, "dresden": 40}


def agreement(**training: Any) -> Federation:
    return Federation.model_validate(
        {
            "name": "test",
            "targets": {
                "strength": {"unit": "MPa", "range": [0, 200]},
                "modulus": {"unit": "GPa", "range": [0, 50]},
            },
            "imaging": {"scale": "fit"},
            "backbone": {"name": "resnet18"},
            "head": {"hidden": [8]},
            "training": {"rounds": 3, "learning_rate": 0.01} | training,
            "privacy": {"min_specimens": 4},
        }
    )


def specimens(name: str, size: int, federation: Federation) -> Specimens:
    generator = np.random.default_rng(len(name) * 1000 + size)
    features = generator.gamma(2.0, 0.2, (size, federation.num_features)).astype(np.float32)
    weights = np.random.default_rng(0).normal(size=(federation.num_features, 2))
    targets = np.array([80.0, 20.0]) + features @ weights * np.array([2.0, 0.5])
    return Specimens(
        lab=name,
        ids=tuple(f"{name}-{index}" for index in range(size)),
        features=features,
        targets=targets,
        groups=np.arange(size),
    )


def make_labs(federation: Federation) -> dict[str, Lab]:
    return {
        name: split_lab(specimens(name, size, federation), federation, np.arange(size) % 5 == 0)
        for name, size in SIZES.items()
    }


def run(
    federation: Federation,
    labs: dict[str, Lab] | None = None,
    app: Callable[[ClientApp], ClientApp] = lambda app: app,
) -> RunResult:
    present = labs or make_labs(federation)
    honest = client_app(lambda context: present[str(context.node_config["lab"])])
    return run_federation(
        InProcessGrid(app(honest), {name: {"lab": name} for name in present}), federation
    )


def test_a_run_learns_and_names_who_took_part() -> None:
    result = run(agreement(rounds=40))
    assert [record.server_round for record in result.history] == list(range(1, 41))
    assert all(record.labs == tuple(sorted(SIZES)) for record in result.history)
    assert result.history[-1].train_loss < 0.2 * result.history[0].train_loss
    assert result.excluded == {}
    held_out = {name: len(lab.held_out) for name, lab in make_labs(agreement()).items()}
    assert {name: sums.count.tolist() for name, sums in result.evaluation.errors.items()} == {
        name: [count, count] for name, count in held_out.items()
    }


def test_law_1_over_messages() -> None:
    federation = agreement(rounds=1)
    labs = make_labs(federation)
    result = run(federation, labs)
    features = np.concatenate([lab.training.features for lab in labs.values()]).astype(np.float64)
    targets = np.concatenate([lab.training.targets for lab in labs.values()])
    standardiser = result.standardiser
    np.testing.assert_allclose(standardiser.feature_mean, features.mean(0), rtol=1e-9)
    np.testing.assert_allclose(standardiser.feature_scale, features.std(0), rtol=1e-9)
    np.testing.assert_allclose(standardiser.target_mean, targets.mean(0), rtol=1e-9)
    np.testing.assert_allclose(standardiser.target_scale, targets.std(0), rtol=1e-9)


@pytest.mark.parametrize("strategy", list(STRATEGY_OPTIONS))
def test_every_strategy_gives_the_same_bits_twice(strategy: str) -> None:
    first, second = (run(agreement(strategy=strategy)) for _ in range(2))
    assert all((first.head[name] == second.head[name]).all() for name in first.head)
    assert all(array.dtype == np.float32 for array in first.head.values())
    assert first.history == second.history
    assert first.history[-1].train_loss < first.history[0].train_loss


def test_the_strategies_differ() -> None:
    heads = [run(agreement(strategy=strategy)).head["0.weight"] for strategy in STRATEGY_OPTIONS]
    for index, one in enumerate(heads):
        for other in heads[index + 1 :]:
            assert (one != other).any()


def test_the_order_of_the_labs_does_not_matter() -> None:
    federation = agreement()
    labs = make_labs(federation)
    one = run(federation, labs)
    other = run(federation, dict(reversed(labs.items())))
    assert all((one.head[name] == other.head[name]).all() for name in one.head)


def test_a_lab_may_lack_a_target() -> None:
    federation = agreement(rounds=20)
    labs = make_labs(federation)
    for part in (labs["aachen"].training, labs["aachen"].held_out):
        part.targets[:, 1] = np.nan
    result = run(federation, labs)
    lab = labs["aachen"]
    predicted = predict_in_units(result.head, result.standardiser, lab.held_out.features)
    assert np.isfinite(predicted).all()
    assert result.evaluation.errors["aachen"].count.tolist() == [len(lab.held_out), 0]


def linear() -> Federation:
    """Return the agreement of the strategy ``ridge``."""
    data = agreement(strategy="fedavg", rounds=1).model_dump(mode="json", exclude_none=True)
    data["training"]["strategy"] = "ridge"
    return Federation.model_validate(data | {"head": {"hidden": []}})


def test_ridge_is_one_round_and_equals_the_fit_of_pooled_data() -> None:
    federation = linear()
    labs = make_labs(federation)
    labs["aachen"].training.targets[:, 1] = np.nan
    result = run(federation, labs)
    assert [(r.server_round, r.labs) for r in result.history] == [(1, tuple(sorted(SIZES)))]
    assert result.products is not None
    basis = result.products.basis
    standardised = result.standardiser
    features = np.concatenate([lab.training.features for lab in labs.values()])
    targets = np.concatenate([lab.shared_training_targets for lab in labs.values()])
    x = standardised.features(features) @ basis
    for target in range(2):
        seen = np.isfinite(targets[:, target])
        model = Ridge(alpha=result.products.ridge.penalty[target], solver="svd")
        model.fit(x[seen], standardised.targets(targets)[seen, target].astype(float))
        np.testing.assert_allclose(
            result.products.ridge.weights[target], model.coef_, rtol=1e-9, atol=1e-12
        )
        expected = model.predict(x).astype(np.float32)
        found = head_outputs(result.head, standardised.features(features))[:, target]
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_baseline_of_another_strategy_is_the_head_of_ridge() -> None:
    of_ridge, beside = run(linear()), run(agreement())
    assert beside.products is not None
    baseline = beside.products.ridge.head(beside.products.basis)
    for name, array in of_ridge.head.items():
        np.testing.assert_array_equal(baseline[name], array)
    for lab, errors in of_ridge.evaluation.errors.items():
        np.testing.assert_array_equal(beside.evaluation.baseline[lab].squared, errors.squared)


def test_labs_that_share_no_target_both_gain() -> None:
    """One has only strength, one only modulus; what they have in common lies at the others."""
    federation = agreement(rounds=30)
    labs = make_labs(federation)
    has = {"aachen": 0, "bremen": 1}
    generator = np.random.default_rng(3)
    plane = generator.normal(size=(12, federation.num_features)).astype(np.float32) / 10
    for name, lab in labs.items():
        for part in (lab.training, lab.held_out):
            latent = generator.normal(size=(len(part), 12)).astype(np.float32)
            part.features[:] = latent @ plane
            part.targets[:] = np.column_stack([100 + 15 * latent[:, 0], 25 + 4 * latent[:, 1]])
            if name in has:
                part.targets[:, 1 - has[name]] = np.nan
    together = run(federation, labs)
    for name, target in has.items():
        alone = run(federation, {name: labs[name]})
        apart, joined = (
            found.evaluation.errors[name].metrics(target)["mae"] for found in (alone, together)
        )
        assert joined < 0.8 * apart, name


def test_a_lab_without_products_costs_the_others_nothing() -> None:
    def refusing(app: ClientApp) -> ClientApp:
        def answer(message: Message, context: Context) -> Message:
            own = message.metadata.message_type in ("query.components", "query.gram")
            if own and context.node_config["lab"] == "celle":
                return Message(Error(2, "policy"), reply_to=message)
            return app(message, context)

        return cast(ClientApp, answer)

    result = run(agreement(), app=refusing)
    assert result.products is not None
    assert list(result.products.of_labs) == ["aachen", "bremen", "dresden"]
    assert result.labs == tuple(sorted(SIZES)) and result.excluded == {}
    assert sorted(result.evaluation.baseline) == sorted(SIZES)


def test_intervals_and_novelty_follow_from_counts_over_messages() -> None:
    federation = agreement(rounds=20)
    labs = make_labs(federation)
    result = run(federation, labs)
    told = result.evaluation.total("calibration")
    assert told is not None and result.products is not None
    intervals = Intervals.calibrated(told.counts.sum(axis=0))
    scores = []
    for name in sorted(labs):
        held_out = labs[name].held_out
        predicted = predict_in_units(result.head, result.standardiser, held_out.features)
        spread = spread_in_units(result.head, result.standardiser, held_out.features, federation)
        scores.append(np.abs(held_out.targets - predicted) / spread)
    pooled = Intervals.calibrated(score_counts(np.concatenate(scores)))
    np.testing.assert_array_equal(intervals.quantile, pooled.quantile)
    novelty = result.evaluation.novelty(result.products.novelty)
    pooled_features = np.concatenate([lab.held_out.features for lab in labs.values()])
    inside = novelty.inside(result.standardiser.features(pooled_features))
    assert 0.9 <= inside.mean() <= 1.0


def test_too_few_held_out_specimens_stay_at_the_lab() -> None:
    federation = agreement().replace(privacy={"min_specimens": 5})
    result = run(federation)
    # bremen holds out 4 of 20
    assert sorted(result.evaluation.errors) == ["aachen", "celle", "dresden"]


def test_another_agreement_is_out_by_name() -> None:
    federation = agreement()
    labs = make_labs(federation)
    other = agreement(local_epochs=9)
    labs["celle"] = split_lab(specimens("celle", 25, other), other, np.arange(25) % 5 == 0)
    result = run(federation, labs)
    assert result.labs == ("aachen", "bremen", "dresden")
    assert "holds the agreement" in result.excluded["celle"]


Change = Callable[[Message], None]


def hostile(lab: str, change: Change, kind: str = "train") -> Callable[[ClientApp], ClientApp]:
    """Return a wrapper of an app that changes the replies of one kind at one lab."""

    def wrap(honest: ClientApp) -> ClientApp:
        made = ClientApp()

        def answer(message: Message, context: Context) -> Message:
            reply = honest(message, context)
            if context.node_config["lab"] == lab and message.metadata.message_type == kind:
                change(reply)
            return reply

        made.query("handshake")(answer)
        made.query("statistics")(answer)
        made.query("components")(answer)
        made.query("gram")(answer)
        made.train()(answer)
        made.evaluate()(answer)
        made.query("release")(answer)
        return made

    return wrap


def weight(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    def apply(reply: Message) -> None:
        arrays = reply.content.array_records["arrays"]
        arrays["0.weight"] = Array(change(arrays["0.weight"].numpy()))

    return apply


def metric(key: str, value: float) -> Change:
    def apply(reply: Message) -> None:
        reply.content.metric_records["metrics"][key] = value

    return apply


def lose_array(reply: Message) -> None:
    del reply.content.array_records["arrays"]["0.bias"]


def add_array(reply: Message) -> None:
    reply.content.array_records["arrays"]["9.weight"] = Array(np.zeros(1, np.float32))


def add_record(reply: Message) -> None:
    reply.content["more"] = MetricRecord({"num-examples": 1})


def lose_arrays(reply: Message) -> None:
    reply.content["arrays"] = ArrayRecord()


def rubbish(reply: Message) -> None:
    arrays = reply.content.array_records["arrays"]
    arrays["0.weight"] = Array("float32", (8, 512), "numpy.ndarray", b"\x93NUMPY rubbish")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (weight(lambda array: array * np.float32("nan")), "NaN or infinity"),
        (weight(lambda array: array * np.float32("inf")), "NaN or infinity"),
        (weight(lambda array: array[:1]), "of shape (1, 512)"),
        (weight(lambda array: array.astype(np.float64)), "found float64"),
        (weight(lambda array: array + np.float32(1e6)), "the head moved by"),
        (metric("num-examples", 0), "at least 1, found 0"),
        (metric("num-examples", -1), "at least 1, found -1"),
        (metric("num-examples", 10**12), "trained on 1000000000000 specimens"),
        (metric("train-loss", float("nan")), "finite number, found nan"),
        (metric("extra", 1.0), "expected the numbers"),
        (lose_array, "expected the arrays"),
        (add_array, "expected the arrays"),
        (add_record, "expected the numbers"),
        (lose_arrays, "expected the arrays"),
        (rubbish, "not the bytes of an array"),
    ],
)
def test_law_6_a_broken_reply_is_quarantined_by_name(change: Change, reason: str) -> None:
    result = run(agreement(), app=hostile("celle", change))
    assert reason in result.excluded["celle"]
    assert reason in result.history[0].quarantined["celle"]
    assert [record.labs for record in result.history] == [("aachen", "bremen", "dresden")] * 3
    assert np.isfinite(result.head["0.weight"]).all()


def test_below_the_quorum_the_run_ends_and_names_who_is_missing() -> None:
    with pytest.raises(QuorumError, match=r"round 1: 3 of 4 labs .* quorum is 4; missing: celle"):
        run(agreement(quorum=1.0), app=hostile("celle", metric("num-examples", 0)))


def crash(reply: Message) -> None:
    raise RuntimeError("specimen X-17 of /home/celle/secret.csv has strength 612.5")


def test_a_crash_at_a_lab_costs_one_lab_and_tells_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    result = run(agreement(), app=hostile("celle", crash))
    assert [record.labs for record in result.history] == [("aachen", "bremen", "dresden")] * 3
    assert result.history[0].failed == {"celle": "internal"}
    assert "celle" in result.labs
    assert "secret" not in repr(result.history)


def test_what_a_lab_does_to_its_request_reaches_no_other() -> None:
    """One record goes to all labs; each has its own, and the coordinator's stays as it was."""

    def meddling(honest: ClientApp) -> ClientApp:
        made = ClientApp()

        def answer(message: Message, context: Context) -> Message:
            reply = honest(message, context)
            if message.metadata.message_type == "train":
                arrays = message.content.array_records["arrays"]
                for name, array in list(arrays.items()):
                    array.numpy()[:] = np.nan
                    arrays[name] = Array(array.numpy() * np.float32("nan"))
                message.content.config_records["config"]["fingerprint"] = "0" * 64
                del message.content["standardiser"]
            return reply

        made.query("handshake")(answer)
        made.query("statistics")(answer)
        made.train()(answer)
        made.evaluate()(answer)
        made.query("release")(answer)
        return made

    plain, meddled = run(agreement()), run(agreement(), app=meddling)
    assert all((plain.head[name] == meddled.head[name]).all() for name in plain.head)
    assert plain.history == meddled.history


def test_an_error_of_the_data_leaves_a_lab_as_a_code() -> None:
    federation = agreement()
    labs = make_labs(federation)

    def open_lab(context: Context) -> Lab:
        if context.node_config["lab"] == "celle":
            raise ValueError("private text")
        return labs[str(context.node_config["lab"])]

    grid = InProcessGrid(client_app(open_lab), {name: {"lab": name} for name in labs})
    result = run_federation(grid, federation)
    assert list(result.excluded.values()) == ["internal"]
    assert "private" not in repr(result.excluded)


def test_nothing_private_is_in_any_message() -> None:
    federation = agreement(rounds=2)
    labs = make_labs(federation)
    sent: list[Message] = []

    class Listening(InProcessGrid):
        def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
            replies = super().send_and_receive(messages, timeout=timeout)
            sent.extend(over_the_wire(reply) for reply in replies)
            return replies

    app = client_app(lambda context: labs[str(context.node_config["lab"])])
    run_federation(Listening(app, {name: {"lab": name} for name in labs}), federation)
    text = "".join(repr(reply) for reply in sent)
    numbers = np.concatenate(
        [
            array.numpy().ravel().astype(np.float64)
            for reply in sent
            for record in reply.content.array_records.values()
            for array in record.values()
        ]
    )
    assert "num-examples" in text and len(numbers) > 10_000
    middle = federation.target_shift
    for lab in labs.values():
        for part in (lab.training, lab.held_out):
            assert not any(specimen in text for specimen in part.ids)
            for private in (part.targets, part.targets - middle, part.features):
                assert not np.isin(private, numbers).any()


def test_a_lab_alone_in_the_standardiser_equals_its_own() -> None:
    federation = agreement(rounds=1)
    labs = {"aachen": make_labs(federation)["aachen"]}
    result = run(federation, labs)
    training = labs["aachen"].training
    own = Standardiser.fit(
        training.features,
        training.targets,
        feature_shift=federation.feature_shift,
        feature_weight=federation.feature_weight,
        target_shift=federation.target_shift,
    )
    np.testing.assert_array_equal(result.standardiser.feature_mean, own.feature_mean)


def test_a_target_that_one_lab_has_moves_as_if_that_lab_were_alone() -> None:
    """Law 2 with missing targets: labs without a target do not hold its row back."""
    federation = agreement(rounds=1, local_epochs=1).replace(head={"hidden": [8], "dropout": 0.0})
    labs = make_labs(federation)
    for name in ("aachen", "bremen", "celle"):
        for part in (labs[name].training, labs[name].held_out):
            part.targets[:, 1] = np.nan
    result = run(federation, labs)
    alone = labs["dresden"]
    plan = plan_for(
        federation,
        epochs=1,
        seed=seed_for(federation.training.seed, "train", "dresden", 1),
        proximal_mu=0.0,
    )
    trained, _ = train_head(
        initial_head(federation_shapes(federation), federation.training.seed),
        result.standardiser.features(alone.training.features),
        result.standardiser.targets(alone.training.targets),
        plan,
    )
    for name in ("1.weight", "1.bias"):
        np.testing.assert_allclose(result.head[name][1], trained[name][1], rtol=1e-5)
        assert not np.allclose(result.head[name][0], trained[name][0], rtol=1e-2)
    assert np.abs(trained["1.weight"][1]).max() > 1e-3


def test_a_target_measured_too_rarely_stays_at_the_lab() -> None:
    federation = agreement(rounds=2)
    labs = make_labs(federation)
    measured = labs["celle"].training.targets[3, 1]
    for part in (labs["celle"].training, labs["celle"].held_out):
        part.targets[:, 1] = np.nan
    labs["celle"].training.targets[3, 1] = measured
    app = client_app(lambda context: labs[str(context.node_config["lab"])])
    sent: list[np.ndarray] = []

    class Listening(InProcessGrid):
        def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
            replies = super().send_and_receive(messages, timeout=timeout)
            for reply in replies:
                if reply.has_content() and "target-moments" in reply.content:
                    sent.append(reply.content.array_records["target-moments"]["count"].numpy())
                    sent.append(reply.content.array_records["target-moments"]["total"].numpy())
            return replies

    grid = Listening(app, {"celle": {"lab": "celle"}, "dresden": {"lab": "dresden"}})
    result = run_federation(grid, federation)
    counts, totals = sent[0], sent[1]
    assert (counts[1], totals[1]) == (0.0, 0.0)
    assert result.evaluation.errors["celle"].count[1] == 0
    assert counts[0] == len(labs["celle"].training)


def other_order(reply: Message) -> None:
    arrays = reply.content.array_records["arrays"]
    reply.content["arrays"] = ArrayRecord({name: arrays[name] for name in reversed(list(arrays))})


def more_arrays(reply: Message) -> None:
    reply.content["extra"] = ArrayRecord({"0.weight": Array(np.zeros(1, np.float32))})


@pytest.mark.parametrize("strategy", ["fedavg", "krum", "median"])
@pytest.mark.parametrize("change", [other_order, more_arrays])
def test_law_6_what_a_lab_adds_or_shuffles_reaches_no_strategy(
    strategy: str, change: Change
) -> None:
    plain = run(agreement(strategy=strategy))
    changed = run(agreement(strategy=strategy), app=hostile("celle", change))
    assert changed.excluded == {}
    assert all((plain.head[name] == changed.head[name]).all() for name in plain.head)


def array_of(record: str, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Change:
    def apply(reply: Message) -> None:
        arrays = reply.content.array_records[record]
        arrays[name] = Array(change(arrays[name].numpy()))

    return apply


def entry(record: str, name: str, place: tuple[int, ...], value: float) -> Change:
    def put(array: np.ndarray) -> np.ndarray:
        array[place] = value
        return array

    return array_of(record, name, put)


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("query.statistics", metric("num-examples", 10**12), "in the handshake"),
        ("query.statistics", array_of("target-moments", "count", lambda a: a - 99), "whole number"),
        ("query.statistics", array_of("target-moments", "squares", lambda a: -a), "sum of squares"),
        ("query.statistics", array_of("target-moments", "total", lambda a: a + 1e9), "sum"),
        ("query.statistics", array_of("feature-moments", "count", lambda a: a * 2), "counts"),
        (
            "query.statistics",
            array_of("feature-moments", "squares", lambda a: a + 1e300),
            "beyond any",
        ),
        ("train", metric("train-loss", -5.0), "cannot be"),
        ("train", metric("train-loss", 1.7e308), "cannot be"),
        ("query.components", metric("num-examples", 7), "counted 20 before"),
        ("query.components", array_of("product", "product", lambda a: a + 1e9), "larger than"),
        ("query.gram", array_of("gram-sums", "everyone", lambda a: -a), "count is not that"),
        ("query.gram", array_of("gram-sums", "cross", lambda a: a + 1e9), "no specimens have"),
        ("query.gram", array_of("gram-sums", "gram", lambda a: np.triu(a)), "symmetric"),
        ("query.gram", array_of("gram-sums", "squares", lambda a: a + 1e300), "beyond the fed"),
        ("query.gram", entry("gram-sums", "everyone", (0, 0), 1e308), "beyond any"),
        ("query.gram", entry("gram-sums", "gram", (0, 0, 0), 1e100), "beyond any"),
        ("query.gram", array_of("gram-sums", "gram", lambda a: 2 * a), "count is not that"),
        ("evaluate", array_of("baseline-error-sums", "absolute", lambda a: -a), "negative"),
        ("evaluate", metric("num-examples", 10**11), "100000000000 specimens held out beside 20"),
        ("evaluate", array_of("error-sums", "measured_squared", lambda a: a + 1e9), "is wider"),
        ("evaluate", array_of("calibration-sums", "counts", lambda a: a + 1), "more scores"),
        ("evaluate", array_of("calibration-sums", "counts", lambda a: a / 2), "whole number"),
        ("evaluate", array_of("calibration-sums", "spreads", lambda a: a - 1e9), "negative"),
        ("evaluate", array_of("error-sums", "count", lambda a: a * 0 - 1e12), "whole number"),
        ("evaluate", array_of("error-sums", "absolute", lambda a: -a), "negative"),
        ("evaluate", array_of("error-sums", "squared", lambda a: a * np.nan), "NaN"),
    ],
)
def test_law_6_holds_in_every_phase(kind: str, change: Change, reason: str) -> None:
    result = run(agreement(), app=hostile("celle", change, kind))
    assert reason in result.excluded["celle"]
    assert "celle" not in result.evaluation.errors
    assert result.labs == ("aachen", "bremen", "dresden")
    assert np.isfinite(result.head["0.weight"]).all()


LIE = "aachen sends bad data: revoke it"


def setting(key: str, value: object) -> Change:
    def apply(reply: Message) -> None:
        reply.content.config_records["config"][key] = cast(Any, value)

    return apply


def rename_array(reply: Message) -> None:
    arrays = reply.content.array_records["arrays"]
    arrays[LIE] = arrays["0.bias"]


def rename_record(reply: Message) -> None:
    reply.content[LIE] = MetricRecord({LIE: 1})


def an_error_of_ours(reply: Message) -> None:
    reply.__dict__["_content"] = None
    reply.__dict__["_error"] = Error(UNREADABLE_NUMBER, LIE)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("query.handshake", setting("lab", LIE)),
        ("query.handshake", setting("version", LIE)),
        ("query.handshake", setting("fingerprint", LIE)),
        ("query.handshake", setting("num-examples", LIE)),
        ("train", rename_array),
        ("train", rename_record),
        ("train", metric(LIE, 1.0)),
        ("train", an_error_of_ours),
    ],
)
def test_no_text_that_a_lab_wrote_is_in_what_others_read(kind: str, change: Change) -> None:
    federation = agreement()
    labs = make_labs(federation)
    grid = grid_of(labs, hostile("celle", change, kind))
    enrolled = dict(zip(grid.get_node_ids(), labs, strict=True))
    result = run_federation(grid, federation, RunOptions(enrolled=enrolled))
    assert result.history[0].labs == ("aachen", "bremen", "dresden")
    said = str([result.excluded, result.history])
    assert "celle" in said and "bad data" not in said and LIE[:12] not in said


def test_two_labs_of_one_name() -> None:
    federation = agreement(quorum=0.5)
    labs = make_labs(federation)
    labs["celle"] = labs["bremen"]
    result = run(federation, labs)
    assert "bremen" in result.labs
    assert list(result.excluded.values()) == ["another lab of the same name is in already"]
    assert list(result.excluded) == ["bremen on node 4"]


def test_labs_that_vanish_end_the_run_in_bounded_time() -> None:
    federation = agreement(round_deadline="1 s")
    labs = make_labs(federation)

    class Vanishing(InProcessGrid):
        def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
            replies = super().send_and_receive(messages, timeout=timeout)
            gone = any(reply.metadata.message_type == "train" for reply in replies)
            return [] if gone else replies

        def get_node_ids(self) -> list[int]:
            return []

    class Late(Vanishing):
        asked = 0

        def get_node_ids(self) -> list[int]:
            self.asked += 1
            return InProcessGrid.get_node_ids(self) if self.asked == 1 else []

    app = client_app(lambda context: labs[str(context.node_config["lab"])])
    configs: dict[str, UserConfig] = {name: {"lab": name} for name in labs}
    with pytest.raises(QuorumError, match=r"round 1: 0 of 4 .* aachen \(no reply in time\)"):
        run_federation(Late(app, configs), federation)
    with pytest.raises(QuorumError, match="no lab has come"):
        run_federation(Vanishing(app, configs), federation)


class Counting:
    """Time that passes while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def grid_of(labs: dict[str, Lab], app: Callable[[ClientApp], ClientApp]) -> InProcessGrid:
    honest = client_app(lambda context: labs[str(context.node_config["lab"])])
    return InProcessGrid(app(honest), {name: {"lab": name} for name in labs})


def fails(*names: str) -> Callable[[ClientApp], ClientApp]:
    """Return a wrapper of an app whose labs of these names cannot train."""

    def change(reply: Message) -> None:
        raise RuntimeError("no room")

    def wrap(app: ClientApp) -> ClientApp:
        for name in names:
            app = hostile(name, change)(app)
        return app

    return wrap


def test_below_the_quorum_the_labs_that_answer_are_asked_ever_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Counting()
    monkeypatch.setattr(rounds, "time", clock)
    paused: list[float] = []
    options = RunOptions(
        watcher=Watcher(paused=lambda reason: paused.append(clock.now)), patience=300.0
    )
    federation = agreement(quorum=1.0)
    with pytest.raises(QuorumError, match=r"round 1: 3 of 4 .* celle \(internal\)"):
        run_federation(grid_of(make_labs(federation), fails("celle")), federation, options)
    gaps = np.round(np.diff(paused))
    assert gaps[:6].tolist() == [1, 2, 4, 8, 16, 32] and gaps.max() == 60
    assert clock.now <= 300 + 60


def test_a_run_whose_labs_have_all_been_put_out_ends() -> None:
    federation = agreement()
    labs = make_labs(federation)
    grid = grid_of(labs, lambda app: app)
    counted: list[int] = []
    options = RunOptions(
        watcher=Watcher(counted=lambda record: counted.append(record.server_round)),
        revoked=lambda: grid.get_node_ids() if counted else [],
    )
    with pytest.raises(QuorumError, match=r"round 2: 0 of 0 labs .* aachen \(revoked\)"):
        run_federation(grid, federation, options)


def test_to_revoke_a_quarantined_lab_lowers_the_quorum() -> None:
    """Four labs, two thirds needed: one lies, one is gone; the liar no longer counts."""
    federation = agreement(quorum=0.75)
    labs = make_labs(federation)
    app = hostile("bremen", metric("num-examples", 0))

    def with_a_failing_lab(honest: ClientApp) -> ClientApp:
        return fails("celle")(app(honest))

    with pytest.raises(QuorumError, match="round 1: 2 of 4 labs took part and the quorum is 3"):
        run_federation(grid_of(labs, with_a_failing_lab), federation)
    grid = grid_of(labs, with_a_failing_lab)
    bremen, celle = grid.get_node_ids()[1:3]
    paused: list[str] = []
    options = RunOptions(
        watcher=Watcher(paused=paused.append),
        patience=30.0,
        revoked=lambda: [bremen, celle] if paused else [],
    )
    result = run_federation(grid, federation, options)
    assert result.labs == ("aachen", "dresden")
    assert [record.labs for record in result.history] == [("aachen", "dresden")] * 3
    assert all({"bremen", "celle"} <= set(record.out) for record in result.history[1:])


class Breaking(InProcessGrid):
    """Of four labs one is away, two break off in the first handshake, and all are back after it."""

    breaks, away = 1, True

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
        asked = list(messages)
        replies = super().send_and_receive(asked, timeout=timeout)
        if asked and asked[0].metadata.message_type == "query.handshake" and self.breaks:
            self.breaks -= 1
            self.away = False
            return replies[:1]
        return replies

    def get_node_ids(self) -> list[int]:
        nodes = super().get_node_ids()
        return nodes[:3] if self.away else nodes


def breaking(federation: Federation) -> tuple[Breaking, dict[int, str]]:
    labs = make_labs(federation)
    app = client_app(lambda context: labs[str(context.node_config["lab"])])
    grid = Breaking(app, {name: {"lab": name} for name in labs})
    return grid, dict(zip(InProcessGrid.get_node_ids(grid), labs, strict=True))


def test_fault_7_a_handshake_below_the_quorum_waits_for_those_that_are_enrolled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rounds, "time", Counting())
    federation = agreement()
    grid, enrolled = breaking(federation)
    paused: list[str] = []
    options = RunOptions(watcher=Watcher(paused=paused.append), patience=60.0, enrolled=enrolled)
    result = run_federation(grid, federation, options)
    assert paused == [
        "handshake: 1 of 4 labs took part and the quorum is 3; missing: bremen (no reply in time); "
        "celle (no reply in time); dresden (not connected)"
    ]
    assert result.excluded == {}
    assert [record.labs for record in result.history] == [tuple(sorted(SIZES))] * 3


@pytest.mark.parametrize("is_enrolled", [True, False])
def test_a_handshake_below_the_quorum_ends_a_run_without_patience(is_enrolled: bool) -> None:
    federation = agreement()
    grid, enrolled = breaking(federation)
    with pytest.raises(QuorumError, match=r"handshake: 1 of [34] labs .*\(no reply in time\)"):
        run_federation(grid, federation, RunOptions(enrolled=enrolled if is_enrolled else {}))


def test_who_is_refused_is_missing_where_labs_are_enrolled_alone() -> None:
    federation = agreement(quorum=1.0)
    labs = make_labs(federation)
    grid = grid_of(labs, hostile("celle", setting("version", "9.9"), "query.handshake"))
    assert run_federation(grid, federation).labs == ("aachen", "bremen", "dresden")
    enrolled = dict(zip(grid.get_node_ids(), labs, strict=True))
    with pytest.raises(QuorumError, match=r"3 of 4 .* celle \(runs crossply 9.9, the"):
        run_federation(grid, federation, RunOptions(enrolled=enrolled))


def test_who_is_enrolled_and_away_is_out_by_name_once_a_quorum_has_passed() -> None:
    federation = agreement()
    grid, enrolled = breaking(federation)
    grid.breaks = 0
    revoked = max(enrolled) + 1
    options = RunOptions(enrolled=enrolled | {revoked: "essen"}, revoked=lambda: [revoked])
    result = run_federation(grid, federation, options)
    assert result.excluded == {"dresden": "not there when the run began"}
    assert result.labs == ("aachen", "bremen", "celle")
