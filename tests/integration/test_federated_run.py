"""The coordinator's rounds over InProcessGrid, with labs that behave and labs that do not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord
from flwr.clientapp import ClientApp

from client.app import client_app
from client.evaluation import predict_in_units
from client.lab import Lab, split_lab
from client.specimens import Specimens
from common.errors import QuorumError
from common.federation import STRATEGY_OPTIONS, Federation
from common.standardise import Standardiser
from server.rounds import RunResult, run_federation
from simulation.grid import InProcessGrid

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
        name: split_lab(specimens(name, size, federation), federation, folds=5, fold=0)
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
    result = run(agreement(rounds=30))
    assert [record.server_round for record in result.history] == list(range(1, 31))
    assert all(record.labs == tuple(sorted(SIZES)) for record in result.history)
    assert result.history[-1].train_loss < 0.2 * result.history[0].train_loss
    assert result.excluded == {}
    held_out = {name: len(lab.held_out) for name, lab in make_labs(agreement()).items()}
    assert {name: sums.count.tolist() for name, sums in result.evaluation.items()} == {
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
    assert result.evaluation["aachen"].count.tolist() == [len(lab.held_out), 0]


def test_too_few_held_out_specimens_stay_at_the_lab() -> None:
    federation = agreement().replace(privacy={"min_specimens": 5})
    result = run(federation)
    # bremen holds out 4 of 20
    assert sorted(result.evaluation) == ["aachen", "celle", "dresden"]


def test_another_agreement_is_out_by_name() -> None:
    federation = agreement()
    labs = make_labs(federation)
    labs["celle"] = split_lab(
        specimens("celle", 25, federation), agreement(local_epochs=9), folds=5, fold=0
    )
    result = run(federation, labs)
    assert result.labs == ("aachen", "bremen", "dresden")
    assert "holds the agreement" in result.excluded["celle"]


Change = Callable[[Message], None]


def hostile(lab: str, change: Change) -> Callable[[ClientApp], ClientApp]:
    """Return an app whose answers are those of `app`, changed at one lab after training."""

    def wrap(honest: ClientApp) -> ClientApp:
        made = ClientApp()

        def answer(message: Message, context: Context) -> Message:
            reply = honest(message, context)
            if context.node_config["lab"] == lab and message.metadata.message_type == "train":
                change(reply)
            return reply

        made.query("handshake")(answer)
        made.query("statistics")(answer)
        made.train()(answer)
        made.evaluate()(answer)
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
    sent: list[str] = []

    class Listening(InProcessGrid):
        def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
            replies = super().send_and_receive(messages, timeout=timeout)
            sent.extend(repr(reply) for reply in replies)
            return replies

    app = client_app(lambda context: labs[str(context.node_config["lab"])])
    run_federation(Listening(app, {name: {"lab": name} for name in labs}), federation)
    everything = "".join(sent)
    assert "num-examples" in everything
    for lab in labs.values():
        assert not any(specimen in everything for specimen in lab.training.ids)


def test_a_lab_alone_in_the_standardiser_equals_its_own() -> None:
    federation = agreement(rounds=1)
    labs = {"aachen": make_labs(federation)["aachen"]}
    result = run(federation, labs)
    own = Standardiser.fit(
        labs["aachen"].training.features, labs["aachen"].training.targets, federation.target_shift
    )
    np.testing.assert_array_equal(result.standardiser.feature_mean, own.feature_mean)
