"""Features that a microscope shifts and stretches, brought back, and used where that helps."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from client.alignment import find_alignment
from client.choice import ALIGNED, CORAL, SHARED, choose
from client.specimens import Specimens
from client.versions import Versions
from common.bundle import Model
from common.federation import Federation
from common.gram import GramSums
from common.novelty import Novelty
from common.standardise import Standardiser
from server.shift import distances

FEDERATION = Federation.model_validate(
    {
        "name": "test",
        "targets": {"strength": {"unit": "MPa", "range": [0, 200]}},
        "imaging": {"scale": "fit"},
        "backbone": {"name": "resnet18"},
        "head": {"hidden": []},
    }
)
WIDTH = 6


def everyone() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(400, WIDTH))


def novelty_of(features: np.ndarray) -> Novelty:
    return Novelty.of(GramSums.of(features, np.zeros((len(features), 1))), np.eye(WIDTH))


def model() -> Model:
    """Return a head that adds up standardised features, which are features."""
    ones, zeros = np.ones(WIDTH), np.zeros(WIDTH)
    return Model(
        head={
            "0.weight": np.ones((1, WIDTH), np.float32),
            "0.bias": np.zeros(1, np.float32),
        },
        standardiser=Standardiser(
            feature_mean=zeros,
            feature_scale=ones,
            feature_weight=ones,
            target_mean=np.array([100.0]),
            target_scale=np.array([10.0]),
        ),
        fingerprint="ab12",
    )


def at_a_lab(seen: np.ndarray, truth: np.ndarray) -> Specimens:
    return Specimens(
        lab="aachen",
        ids=tuple(str(row) for row in range(len(seen))),
        features=seen.astype(np.float32),
        targets=100.0 + 10.0 * truth.sum(axis=1, keepdims=True),
        groups=np.arange(len(seen)),
    )


@pytest.mark.parametrize("correlations", [False, True])
def test_a_lab_like_all_others_is_hardly_moved(correlations: bool) -> None:
    features = everyone()
    novelty = novelty_of(features)
    moved = find_alignment(features, novelty, correlations=correlations)(features, novelty)
    assert_allclose(moved, features, atol=1e-5)


@pytest.mark.parametrize("correlations", [False, True])
def test_aligned_features_have_everyones_mean_and_spread(correlations: bool) -> None:
    novelty = novelty_of(everyone())
    mix = np.eye(WIDTH) + 0.8 * np.eye(WIDTH, k=1)
    own = np.random.default_rng(2).normal(size=(4000, WIDTH)) * 3.0 @ mix + 5.0
    moved = find_alignment(own, novelty, correlations=correlations)(own, novelty)
    # a lab's own spread counts as 4000 specimens, everyone's as 20
    z = moved @ novelty.directions - novelty.mean
    assert_allclose(z.mean(axis=0), 0.0, atol=0.05)
    spread = np.cov(z, rowvar=False)
    assert_allclose(np.diag(spread), 1.0, atol=0.05)
    if correlations:
        assert_allclose(spread, np.eye(WIDTH), atol=0.05)
    of_labs = {
        name: GramSums.of(values, np.zeros((len(values), 1)))
        for name, values in (("all", everyone()), ("own", own), ("moved", moved))
    }
    found = distances(of_labs)
    assert found[0, 2] < 0.5 * found[0, 1]


def test_correlations_that_others_do_not_have_are_taken_out() -> None:
    features = everyone()
    novelty = novelty_of(features)
    mixed = features @ (np.eye(WIDTH) + 0.8 * np.eye(WIDTH, k=1))
    moved = find_alignment(mixed, novelty, correlations=True)(mixed, novelty)
    before, after = (
        np.abs(np.corrcoef(values, rowvar=False) - np.eye(WIDTH)).max() for values in (mixed, moved)
    )
    assert before > 0.5 and after < 0.2


def test_what_lies_outside_the_directions_stays() -> None:
    features = everyone()
    novelty = Novelty(directions=np.eye(WIDTH)[:, :2], mean=np.zeros(2), threshold=3.0)
    moved = find_alignment(features + 5.0, novelty, correlations=False)(features + 5.0, novelty)
    assert_allclose(moved[:, 2:], features[:, 2:] + 5.0, rtol=1e-6)
    assert np.abs(moved[:, :2].mean(axis=0)).max() < 0.5


def test_a_lab_whose_microscope_is_shifted_predicts_better_on_aligned_features() -> None:
    truth = np.random.default_rng(1).normal(size=(80, WIDTH))
    # shifts that cancel in the sum, so that no offset helps
    seen = truth * np.array([3.0, 0.3] * 3) + np.array([1.5, -1.5] * 3)
    training, held_out = at_a_lab(seen[:50], truth[:50]), at_a_lab(seen[50:], truth[50:])
    versions = Versions.of(model(), training, FEDERATION, novelty_of(everyone()))
    predicted = versions.predictions(held_out.features)
    errors = {
        name: float(np.abs(values - held_out.targets).mean()) for name, values in predicted.items()
    }
    assert errors[ALIGNED] < 0.9 * errors[SHARED]
    columns = {name: values[:, 0] for name, values in predicted.items()}
    choice = choose(held_out.targets[:, 0], columns, np.arange(30) % 2)
    assert choice.version in (ALIGNED, CORAL)


def test_without_novelty_nothing_can_be_aligned() -> None:
    lab = at_a_lab(everyone()[:30], everyone()[:30])
    versions = Versions.of(model(), lab, FEDERATION, None)
    assert ALIGNED not in versions.predictions(lab.features)
