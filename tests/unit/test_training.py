from dataclasses import replace

import numpy as np
import pytest
import torch

from client.training import TrainingPlan, train_head
from common.federation import Head
from common.head import HeadArrays, forward, head_shapes, initial_head, predict

PLAN = TrainingPlan(
    epochs=3,
    batch_size=4,
    optimizer="adamw",
    learning_rate=1e-2,
    weight_decay=1e-2,
    dropout=0.1,
    seed=7,
)
ONE_STEP = replace(PLAN, epochs=1, batch_size=1000, optimizer="sgd", weight_decay=0.0, dropout=0.0)


def table(seed: int, size: int, num_targets: int = 2) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(size, 6)).astype(np.float32)
    targets = (features @ generator.normal(size=(6, num_targets))).astype(np.float32)
    return features, targets


def random_head(seed: int = 0, num_targets: int = 2) -> HeadArrays:
    generator = np.random.default_rng(seed)
    shapes = head_shapes(6, num_targets, Head(hidden=(5,)))
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_law_2_weighted_average_of_one_step_is_one_centralised_step() -> None:
    head = random_head()
    labs = [table(seed, size) for seed, size in ((1, 5), (2, 11), (3, 24))]
    trained = [train_head(head, *lab, ONE_STEP)[0] for lab in labs]
    total = sum(len(features) for features, _ in labs)
    average = {
        name: sum(len(lab[0]) / total * part[name] for lab, part in zip(labs, trained, strict=True))
        for name in head
    }
    pooled = [np.concatenate(parts) for parts in zip(*labs, strict=True)]
    centralised, _ = train_head(head, pooled[0], pooled[1], ONE_STEP)
    for name in head:
        np.testing.assert_allclose(average[name], centralised[name], rtol=1e-6, atol=1e-6)
    assert not np.allclose(centralised["1.weight"], head["1.weight"], atol=1e-3)


def test_one_step_on_one_weight_by_hand() -> None:
    head = {"0.weight": np.array([[2.0]], np.float32), "0.bias": np.array([0.0], np.float32)}
    features, targets = np.array([[1.0]], np.float32), np.array([[1.0]], np.float32)
    trained, loss = train_head(head, features, targets, replace(ONE_STEP, learning_rate=0.1))
    # the error is 1, so that the loss is 1 and its slope 2 for weight and bias alike
    assert loss == pytest.approx(1.0)
    assert trained["0.weight"][0, 0] == pytest.approx(1.8)
    assert trained["0.bias"][0] == pytest.approx(-0.2)


def test_same_seed_same_bits_other_seed_other_bits() -> None:
    one, _ = train_head(random_head(), *table(1, 20), PLAN)
    again, _ = train_head(random_head(), *table(1, 20), PLAN)
    other, _ = train_head(random_head(), *table(1, 20), replace(PLAN, seed=8))
    assert all((one[name] == again[name]).all() for name in one)
    assert any((one[name] != other[name]).any() for name in one)


def test_the_head_that_was_received_is_left_as_it_was() -> None:
    head = random_head()
    before = {name: array.copy() for name, array in head.items()}
    train_head(head, *table(1, 20), PLAN)
    assert all((head[name] == before[name]).all() for name in head)


def test_a_missing_target_pulls_on_nothing() -> None:
    features, targets = table(1, 8)
    targets[:, 1] = np.nan
    head = random_head()
    both, _ = train_head(head, features, targets, replace(ONE_STEP, learning_rate=0.1))
    assert (both["1.weight"][1] == head["1.weight"][1]).all()
    assert (both["1.weight"][0] != head["1.weight"][0]).any()
    single = {name: value[:1] if name.startswith("1.") else value for name, value in head.items()}
    alone, _ = train_head(single, features, targets[:, :1], replace(ONE_STEP, learning_rate=0.1))
    np.testing.assert_allclose(both["0.weight"], alone["0.weight"], rtol=1e-6)


def test_a_batch_without_any_target_is_passed_over() -> None:
    features, targets = table(1, 4)
    targets[:] = np.nan
    head = random_head()
    trained, loss = train_head(head, features, targets, PLAN)
    assert loss == 0.0
    assert all((trained[name] == head[name]).all() for name in head)


def test_proximal_term_holds_the_head_back() -> None:
    plan = replace(PLAN, optimizer="sgd", epochs=20, dropout=0.0, weight_decay=0.0)
    head = random_head()

    def distance(mu: float) -> float:
        trained, _ = train_head(head, *table(1, 20), replace(plan, proximal_mu=mu))
        return float(sum(((trained[name] - head[name]) ** 2).sum() for name in head))

    assert distance(0.0) > 1.5 * distance(1.0) > 1.5 * distance(10.0)


def test_proximal_step_by_hand() -> None:
    # two steps: the first starts at the received head, where the term and its slope are zero
    head = {"0.weight": np.array([[2.0]], np.float32), "0.bias": np.array([0.0], np.float32)}
    features, targets = np.array([[1.0]], np.float32), np.array([[1.0]], np.float32)
    plan = replace(ONE_STEP, learning_rate=0.1, epochs=2, proximal_mu=1.0)
    trained, _ = train_head(head, features, targets, plan)
    # after step one: weight 1.8, bias -0.2, error 0.6; slopes 1.2 + mu * (-0.2) = 1.0
    assert trained["0.weight"][0, 0] == pytest.approx(1.7)
    assert trained["0.bias"][0] == pytest.approx(-0.3)


def test_dropout_keeps_the_mean_and_follows_its_generator() -> None:
    head = {
        "0.weight": np.ones((4000, 1), np.float32),
        "0.bias": np.zeros(4000, np.float32),
        "1.weight": np.full((1, 4000), 1 / 4000, np.float32),
        "1.bias": np.zeros(1, np.float32),
    }
    parameters = {name: torch.from_numpy(array) for name, array in head.items()}
    ones = torch.ones(1, 1)
    drawn = []
    for seed in (0, 0, 1):
        generator = torch.Generator().manual_seed(seed)
        drawn.append(forward(parameters, ones, dropout=0.5, generator=generator).item())
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] == pytest.approx(1.0, abs=0.1)
    assert predict(head, np.ones((1, 1), np.float32))[0, 0] == pytest.approx(1.0, abs=1e-4)


def test_first_prediction_of_a_new_head_is_the_mean() -> None:
    head = initial_head(head_shapes(6, 2, Head(hidden=(5, 3))), seed=0)
    assert (predict(head, table(1, 4)[0]) == 0).all()
