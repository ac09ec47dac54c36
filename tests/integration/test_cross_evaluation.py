"""Each lab's own head at every lab: as in a simulation, and only what was agreed and is told."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, Context, Error, Message
from flwr.clientapp import ClientApp

from client.app import client_app
from client.lab import HELD_OUT_FOLDS, Lab, require_cross_evaluation, split_lab
from client.specimens import Specimens
from common.errors import RequestError
from common.federation import Federation
from common.messages import ERROR_NUMBER, OWN_MODEL, TRIAL
from server.evidence import CrossErrors
from server.page import coordinator_report
from server.rounds import run_federation
from server.state import RunResult
from simulation.consortium import Consortium
from simulation.crosslab import cross_errors
from simulation.experiment import folds_of_labs, run_experiment
from simulation.grid import InProcessGrid

SIZES = {"aachen": 30, "bremen": 20, "celle": 45}


def agreement(**privacy: Any) -> Federation:
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
            "training": {"rounds": 3, "learning_rate": 0.01, "quorum": 0.5},
            "privacy": {"min_specimens": 4, "cross_evaluation": True} | privacy,
        }
    )


def consortium(federation: Federation) -> Consortium:
    labs = []
    for number, (name, size) in enumerate(SIZES.items()):
        generator = np.random.default_rng(number)
        features = generator.gamma(2.0, 0.2, (size, federation.num_features)).astype(np.float32)
        weights = np.random.default_rng(9).normal(size=(federation.num_features, 2))
        specimens = Specimens(
            lab=name,
            ids=tuple(f"{name}-{index}" for index in range(size)),
            features=features,
            targets=np.array([80.0, 20.0]) + features @ weights * np.array([2.0, 0.5]),
            groups=np.arange(size),
        )
        labs.append(specimens)
    return Consortium(federation=federation, labs=tuple(labs))


def labs_of(found: Consortium) -> dict[str, Lab]:
    """Hold out what a simulation holds out."""
    folds = folds_of_labs(found, HELD_OUT_FOLDS)
    return {
        lab.lab: split_lab(lab, found.federation, fold == 0)
        for lab, fold in zip(found.labs, folds, strict=True)
    }


def run(labs: dict[str, Lab], app: Callable[[ClientApp], ClientApp] = lambda app: app) -> RunResult:
    honest = client_app(lambda context: labs[str(context.node_config["lab"])])
    grid = InProcessGrid(app(honest), {name: {"lab": name} for name in labs})
    return run_federation(grid, next(iter(labs.values())).federation)


def matrix(crossed: CrossErrors, target: int) -> np.ndarray:
    return np.array([[errors[target] for errors in row.values()] for row in crossed.values()])


def test_it_is_what_a_simulation_shows_to_two_digits() -> None:
    found = consortium(agreement())
    simulated = run_experiment(found, modes=("federated", "local"))
    labs = labs_of(found)
    result = run(labs)
    assert list(result.crossed) == [*SIZES]
    assert all(list(row) == [*SIZES] for row in result.crossed.values())
    for target in (0, 1):
        expected = cross_errors(simulated, target)
        two_digits = np.vectorize(lambda value: float(f"{value:.2g}"))(expected[:-1])
        np.testing.assert_array_equal(matrix(result.crossed, target), two_digits)
        shown = coordinator_report(found.federation, result).evidence.matrices[target]
        assert shown.rows == (*SIZES, "shared") and shown.columns == tuple(SIZES)
        np.testing.assert_allclose(shown.values[-1], expected[-1], rtol=1e-6)
    # what each head is best at is what it has seen the like of, and they differ
    assert len(set(matrix(result.crossed, 0).ravel())) > 6


def test_nothing_of_it_is_asked_or_answered_where_it_was_not_agreed() -> None:
    labs = labs_of(consortium(agreement(cross_evaluation=False)))
    asked = set()

    def listening(honest: ClientApp) -> ClientApp:
        class Listening(ClientApp):
            def __call__(self, message: Message, context: Context) -> Message:
                asked.add(message.metadata.message_type)
                return honest(message, context)

        return Listening()

    result = run(labs, listening)
    assert result.crossed == {} and asked and not asked & {OWN_MODEL, TRIAL}
    titles = [m.title for m in coordinator_report(agreement(), result).evidence.matrices]
    assert any("linear model at the other labs" in title for title in titles)


def changed(lab: str, kind: str, change: Callable[[Message], Message]) -> Any:
    """Return a wrapper of an app that changes the replies of one kind at one lab."""

    def wrap(honest: ClientApp) -> ClientApp:
        class Changed(ClientApp):
            def __call__(self, message: Message, context: Context) -> Message:
                reply = honest(message, context)
                ours = context.node_config["lab"] == lab
                return change(reply) if ours and message.metadata.message_type == kind else reply

        return Changed()

    return wrap


def put(record: str, name: str, value: float) -> Callable[[Message], Message]:
    def change(reply: Message) -> Message:
        arrays = reply.content.array_records[record]
        arrays[name] = Array(np.full_like(arrays[name].numpy(), value))
        return reply

    return change


@pytest.mark.parametrize(
    ("kind", "record", "name", "value", "reason"),
    [
        (OWN_MODEL, "arrays", "0.weight", np.nan, "NaN"),
        (OWN_MODEL, "standardiser", "feature_mean", np.inf, "infinity"),
        (TRIAL, "trial-errors", "error", -1.0, "below zero"),
        (TRIAL, "trial-errors", "error", np.nan, "NaN"),
        (TRIAL, "trial-errors", "count", 1e12, "specimens held out beside 16"),
        (TRIAL, "trial-errors", "count", 0.5, "whole number"),
        (TRIAL, "trial-errors", "count", 0.0, "over no specimens"),
        (OWN_MODEL, "arrays", "0.weight", 1e30, "the head's norm is"),
        (OWN_MODEL, "standardiser", "target_scale", 1e200, "a spread that no specimens have"),
        (OWN_MODEL, "standardiser", "feature_scale", 0.0, "a spread that no specimens have"),
        (OWN_MODEL, "standardiser", "target_mean", -1.0, "a mean lies outside"),
        (OWN_MODEL, "standardiser", "feature_weight", 9.0, "weights are not those"),
    ],
)
def test_law_6_a_broken_reply_puts_its_lab_out_and_costs_no_other(
    kind: str, record: str, name: str, value: float, reason: str
) -> None:
    labs = labs_of(consortium(agreement()))
    result = run(labs, changed("bremen", kind, put(record, name, value)))
    assert list(result.excluded) == ["bremen"] and reason in result.excluded["bremen"]
    expected = run(labs).crossed
    for own in ("aachen", "celle"):
        for other in ("aachen", "celle"):
            np.testing.assert_array_equal(result.crossed[own][other], expected[own][other])
    assert list(result.crossed) == ["aachen", "celle"]
    assert all(list(row) == ["aachen", "celle"] for row in result.crossed.values())


@pytest.mark.parametrize("end", [0.0, 200.0])
def test_a_lab_whose_values_all_lie_at_an_end_of_the_range_stays_in(end: float) -> None:
    found = consortium(agreement())
    for specimens in found.labs[1:]:
        specimens.targets[:, 0] = end
    result = run(labs_of(found))
    assert result.excluded == {} and list(result.crossed) == [*SIZES]
    with pytest.raises(RequestError, match="without cross_evaluation"):
        require_cross_evaluation(agreement(cross_evaluation=False))


def test_an_error_beyond_the_targets_range_is_no_number_to_show() -> None:
    labs = labs_of(consortium(agreement()))
    result = run(labs, changed("bremen", TRIAL, put("trial-errors", "error", 60.0)))
    assert result.excluded == {}
    # strength ranges over 200, modulus over 50
    assert matrix(result.crossed, 0)[:, 1].tolist() == [60.0] * 3
    assert np.isnan(matrix(result.crossed, 1)[:, 1]).all()


def test_heads_are_tried_in_an_order_that_is_not_that_of_the_names() -> None:
    found = consortium(agreement())
    labs = labs_of(found)
    tried: list[float] = []

    def listening(honest: ClientApp) -> ClientApp:
        class Listening(ClientApp):
            def __call__(self, message: Message, context: Context) -> Message:
                if message.metadata.message_type == TRIAL and context.node_config["lab"] == "celle":
                    arrays = message.content.array_records["standardiser"]
                    tried.append(float(arrays["target_mean"].numpy()[0]))
                return honest(message, context)

        return Listening()

    run(labs, listening)
    means = [float(lab.training.targets[:, 0].mean()) for lab in labs.values()]
    assert sorted(tried) == pytest.approx(sorted(means))
    assert tried != pytest.approx(means)


def test_a_lab_that_keeps_its_head_back_still_tries_the_others() -> None:
    def refuse(reply: Message) -> Message:
        reply.__dict__["_content"] = None
        reply.__dict__["_error"] = Error(ERROR_NUMBER, "policy")
        return reply

    result = run(labs_of(consortium(agreement())), changed("bremen", OWN_MODEL, refuse))
    assert result.excluded == {} and list(result.crossed) == ["aachen", "celle"]
    assert all(list(row) == [*SIZES] for row in result.crossed.values())


def test_what_a_lab_does_not_tell_or_has_not_learned_is_missing() -> None:
    found = consortium(agreement(min_specimens=6))
    celle = found.labs[-1]
    # 4 of 20 are held out: too few to tell
    celle.targets[:, 1] = np.nan
    result = run(labs_of(found))
    assert list(result.crossed) == [*SIZES]
    assert all(list(row) == ["aachen", "celle"] for row in result.crossed.values())
    assert np.isnan(result.crossed["celle"]["aachen"][1])
    assert np.isfinite(result.crossed["celle"]["aachen"][0])
    assert np.isnan(result.crossed["aachen"]["celle"][1])
    assert np.isfinite(result.crossed["bremen"]["aachen"]).all()


def test_a_lab_that_is_silent_once_is_not_waited_for_again() -> None:
    labs = labs_of(consortium(agreement()))
    asked: list[str] = []

    class Silent(InProcessGrid):
        def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
            messages = list(messages)
            kinds = {message.metadata.message_type for message in messages}
            replies = super().send_and_receive(messages, timeout=timeout)
            if kinds != {TRIAL}:
                return replies
            asked.append(str(len(messages)))
            # the second lab of three says nothing to the first trial
            return replies if len(messages) < 3 else [replies[0], replies[2]]

    honest = client_app(lambda context: labs[str(context.node_config["lab"])])
    result = run_federation(Silent(honest, {name: {"lab": name} for name in labs}), agreement())
    assert asked == ["3", "2", "2"]
    assert result.excluded == {}
    assert all(list(row) == ["aachen", "celle"] for row in result.crossed.values())
