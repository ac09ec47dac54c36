"""Law 4 on plain arrays: training labs together equals training them one by one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st

from client.training import TrainingPlan, TrainingTask, train_head
from common.errors import DivergedError
from common.federation import STRATEGY_OPTIONS, Head, Training
from common.head import HeadArrays, head_shapes, initial_head
from common.messages import CONFIG, PROXIMAL_MU, Terms, TrainReply
from server.aggregation import weigh_rows
from server.state import RoundState
from server.strategy import ROBUST, make_strategy
from server.training_round import train_requests
from simulation import stacked_training
from simulation.grid import InProcessGrid
from simulation.stacked_training import train_heads

PLAN = TrainingPlan(
    epochs=2,
    batch_size=4,
    optimizer="adamw",
    learning_rate=1e-2,
    weight_decay=1e-2,
    dropout=0.3,
    seed=0,
    proximal_mu=0.1,
)
NUM_FEATURES = 5

Train = Callable[[Sequence[TrainingTask]], list[Any]]
Tables = list[tuple[np.ndarray, np.ndarray]]


def one_by_one(tasks: Sequence[TrainingTask]) -> list[Any]:
    return [train_head(task.head, task.features, task.targets, task.plan) for task in tasks]


def first_head(num_targets: int, hidden: tuple[int, ...] = (4,), seed: int = 0) -> HeadArrays:
    """Return a head that has learned something: its output is not zero any more."""
    generator = np.random.default_rng(seed)
    shapes = head_shapes(NUM_FEATURES, num_targets, Head(hidden=hidden))
    return {name: generator.normal(size=shape) for name, shape in shapes.items()}


def table(seed: int, size: int, num_targets: int, missing: float = 0.0) -> tuple[Any, Any]:
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(size, NUM_FEATURES))
    targets = generator.normal(size=(size, num_targets))
    return features, np.where(generator.random(targets.shape) < missing, np.nan, targets)


def tasks_of(
    tables: Tables, head: HeadArrays, plan: TrainingPlan = PLAN, server_round: int = 0
) -> list[TrainingTask]:
    return [
        TrainingTask(
            head=head,
            features=features,
            targets=targets,
            plan=replace(plan, seed=1000 * server_round + lab),
        )
        for lab, (features, targets) in enumerate(tables)
    ]


def assert_equal(found: list[Any], expected: list[Any], tolerance: float = 1e-9) -> None:
    for (head, loss), (other, other_loss) in zip(found, expected, strict=True):
        assert loss == pytest.approx(other_loss, rel=tolerance, abs=tolerance)
        assert list(head) == list(other)
        for name in head:
            assert head[name].dtype == other[name].dtype
            np.testing.assert_allclose(head[name], other[name], rtol=tolerance, atol=tolerance)


@st.composite
def labs(draw: st.DrawFn, num_targets: int, at_least: int = 1) -> Tables:
    sizes = draw(st.lists(st.integers(1, 14), min_size=at_least, max_size=6))
    missing = draw(st.sampled_from([0.0, 0.3, 0.9]))
    seed = draw(st.integers(0, 2**16))
    return [table(seed + lab, size, num_targets, missing) for lab, size in enumerate(sizes)]


@st.composite
def plans(draw: st.DrawFn) -> TrainingPlan:
    return TrainingPlan(
        epochs=draw(st.integers(1, 3)),
        batch_size=draw(st.integers(1, 16)),
        optimizer=draw(st.sampled_from(["adamw", "sgd"])),
        learning_rate=1e-2,
        weight_decay=draw(st.sampled_from([0.0, 0.1])),
        dropout=draw(st.sampled_from([0.0, 0.5])),
        seed=0,
        proximal_mu=draw(st.sampled_from([0.0, 0.5])),
    )


HIDDEN = st.sampled_from([(), (1,), (4,), (6, 3), (3, 2, 4)])


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_law_4_for_any_labs_heads_and_plans(data: st.DataObject) -> None:
    num_targets = data.draw(st.integers(1, 3))
    head = first_head(num_targets, data.draw(HIDDEN))
    tasks = tasks_of(data.draw(labs(num_targets)), head, data.draw(plans()))
    assert_equal(train_heads(tasks), one_by_one(tasks))


def federated(
    tables: Tables, training: Training, plan: TrainingPlan, hidden: tuple[int, ...], train: Train
) -> HeadArrays:
    """Run three rounds of a strategy in float64, which no message of ours carries."""
    num_targets = tables[0][1].shape[1]
    # messages name their run, which is any grid's
    InProcessGrid(ClientApp(), {})
    strategy = make_strategy(training)
    shapes = head_shapes(NUM_FEATURES, num_targets, Head(hidden=hidden))
    head = {name: array.astype(np.float64) for name, array in initial_head(shapes, 0).items()}
    terms = Terms(fingerprint="ab12", version="0.1.0")
    counts = np.stack([np.isfinite(targets).sum(axis=0) for _, targets in tables])
    for server_round in (1, 2, 3):
        state = RoundState(server_round=server_round - 1, head=head)
        nodes = range(2, 2 + len(tables))
        requests = train_requests(strategy, state, {}, terms, list(nodes))
        mu = requests[0].content.config_records[CONFIG].get(PROXIMAL_MU, 0.0)
        tasks = tasks_of(tables, head, replace(plan, proximal_mu=float(str(mu))), server_round)
        updates = [
            TrainReply(head=trained, num_examples=len(task.features), train_loss=None)
            for (trained, _), task in zip(train(tasks), tasks, strict=True)
        ]
        weighed = weigh_rows(updates, counts, robust=isinstance(strategy, ROBUST))
        replies = [
            Message(update.to_record(), reply_to=request)
            for update, request in zip(weighed, requests, strict=True)
        ]
        arrays, _ = strategy.aggregate_train(server_round, replies)
        assert arrays is not None
        head = {name: array.numpy() for name, array in arrays.items()}
        assert all(array.dtype == np.float64 for array in head.values())
    return head


@settings(deadline=None, max_examples=15)
@pytest.mark.parametrize("strategy", list(STRATEGY_OPTIONS))
@given(data=st.data())
def test_law_4_for_every_strategy(strategy: Any, data: st.DataObject) -> None:
    num_targets = data.draw(st.integers(1, 2))
    # of up to four labs Krum chooses one of the nearest pair, whose scores are equal but for the
    # rounding of its own products
    tables = data.draw(labs(num_targets, at_least=5 if strategy == "krum" else 1))
    plan, hidden = data.draw(plans()), data.draw(HIDDEN)
    training = Training(strategy=strategy)
    together = federated(tables, training, plan, hidden, train_heads)
    apart = federated(tables, training, plan, hidden, one_by_one)
    for name in apart:
        np.testing.assert_allclose(together[name], apart[name], rtol=1e-9, atol=1e-9)


def test_fedprox_holds_the_heads_back_together_as_apart() -> None:
    """The strategy's own option reaches the stacked program: another mu, another head."""
    tables = [table(lab, 9, 2) for lab in range(3)]
    plan = replace(PLAN, dropout=0.0)
    weak, strong = (
        federated(tables, Training(strategy="fedprox", proximal_mu=mu), plan, (4,), train_heads)
        for mu in (1e-6, 10.0)
    )
    assert not np.allclose(weak["0.weight"], strong["0.weight"], atol=1e-4)


def test_chunks_do_not_change_what_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = tasks_of([table(lab, 3 + lab, 2) for lab in range(7)], first_head(2))
    together = train_heads(tasks)
    monkeypatch.setitem(stacked_training.CHUNK_BYTES, "cpu", 1)
    assert_equal(train_heads(tasks), together, tolerance=1e-12)
    # the heads of these labs take about a kilobyte, with all that belongs to them two
    monkeypatch.setitem(stacked_training.CHUNK_BYTES, "cpu", 6000)
    assert_equal(train_heads(tasks), together, tolerance=1e-12)


def test_a_lab_whose_head_diverges_costs_that_lab_alone() -> None:
    tables = [table(lab, 8, 2) for lab in range(3)]
    tables[1][1][:] = 1e308
    found = train_heads(tasks_of(tables, first_head(2)))
    with pytest.raises(DivergedError, match="choose a smaller"):
        one_by_one(tasks_of(tables, first_head(2))[1:2])
    assert isinstance(found[1], DivergedError)
    assert "choose a smaller" in str(found[1])
    healthy = [task for lab, task in enumerate(tasks_of(tables, first_head(2))) if lab != 1]
    assert_equal([found[0], found[2]], one_by_one(healthy))


def test_a_lab_that_does_not_fit_costs_that_lab_alone() -> None:
    tasks = tasks_of([table(lab, 8, 2) for lab in range(3)], first_head(2))
    tasks[1] = replace(tasks[1], features=tasks[1].features[:, :3])
    found = train_heads(tasks)
    assert isinstance(found[1], RuntimeError)
    assert_equal([found[0], found[2]], one_by_one([tasks[0], tasks[2]]))


def test_a_lab_without_any_target_gets_its_head_back() -> None:
    tables = [table(0, 8, 2), table(1, 5, 2, missing=1.0)]
    head = first_head(2)
    found: list[Any] = train_heads(tasks_of(tables, head))
    trained, loss = found[1]
    assert loss == 0.0
    assert all((trained[name] == head[name]).all() for name in head)


def test_heads_are_copies_of_their_own() -> None:
    head = first_head(2)
    before = {name: array.copy() for name, array in head.items()}
    found: list[Any] = train_heads(tasks_of([table(lab, 8, 2) for lab in range(2)], head))
    (one, _), (other, _) = found
    for name in head:
        assert (head[name] == before[name]).all()
        assert not np.shares_memory(one[name], other[name])
        one[name][:] = 0.0
        assert other[name].any()


def test_in_float32_errors_agree() -> None:
    """AdamW's first step takes each slope's sign, so that rounding moves single weights."""
    tables = [
        (features.astype(np.float32), targets.astype(np.float32))
        for features, targets in (table(lab, 40, 2) for lab in range(3))
    ]
    head = {name: array.astype(np.float32) for name, array in first_head(2).items()}
    tasks = tasks_of(tables, head, replace(PLAN, epochs=20))
    found: list[Any] = train_heads(tasks)
    for (_, loss), (_, other) in zip(found, one_by_one(tasks), strict=True):
        assert loss == pytest.approx(other, rel=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_law_4_on_a_gpu() -> None:
    tasks = tasks_of([table(lab, 3 + lab, 2, 0.2) for lab in range(7)], first_head(2, (6, 3)))
    assert_equal(train_heads(tasks, torch.device("cuda")), one_by_one(tasks))


def test_how_labs_are_cut_follows_from_their_number_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = tasks_of([table(lab, 12, 2) for lab in range(9)], first_head(2))
    # the heads of these labs take about a kilobyte, with all that belongs to them two
    monkeypatch.setitem(stacked_training.CHUNK_BYTES, "cpu", 6000)
    on_two: list[Any] = train_heads(tasks)
    monkeypatch.setattr(stacked_training, "usable_cores", lambda: 1)
    on_one: list[Any] = train_heads(tasks)
    for (head, _), (other, _) in zip(on_two, on_one, strict=True):
        assert all((head[name] == other[name]).all() for name in head)


def test_no_tasks() -> None:
    assert train_heads([]) == []
