import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.standardise import CLIP, Moments, Standardiser


def fit(features: np.ndarray, targets: np.ndarray) -> Standardiser:
    zeros = np.zeros(features.shape[1])
    return Standardiser.fit(
        features, targets, feature_shift=zeros, feature_weight=zeros + 1, target_shift=np.zeros(1)
    )


def test_merged_moments_are_those_of_three_weights_and_two_labs() -> None:
    shift = np.array([100.0])
    lab_a = Moments.of(np.array([[101.0], [103.0]]), shift)
    lab_b = Moments.of(np.array([[np.nan], [99.0]]), shift)
    merged = lab_a + lab_b
    assert merged.count.tolist() == [3.0]
    mean, deviation = merged.mean_and_deviation(shift)
    assert mean[0] == pytest.approx(101.0)
    assert deviation[0] == pytest.approx(np.sqrt(8 / 3))


@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    middle=st.floats(-1e4, 1e4),
)
def test_law_1_federated_standardiser_is_the_pooled_one(
    seed: int, sizes: list[int], middle: float
) -> None:
    generator = np.random.default_rng(seed)
    features = [generator.gamma(2.0, 0.3, (size, 5)).astype(np.float32) for size in sizes]
    targets = [middle + generator.normal(0, 30.0, (size, 2)) for size in sizes]
    for table in targets:
        table[generator.random(table.shape) < 0.3] = np.nan
    shift = np.array([middle, middle + 50.0])

    zeros = np.zeros(5)
    of_features = [Moments.of(table, zeros) for table in features]
    of_targets = [Moments.of(table, shift) for table in targets]
    federated = Standardiser.from_moments(
        sum(of_features[1:], start=of_features[0]),
        sum(of_targets[1:], start=of_targets[0]),
        feature_shift=zeros,
        feature_weight=zeros + 1,
        target_shift=shift,
    )

    pooled_x = np.concatenate(features).astype(np.float64)
    pooled_y = np.concatenate(targets)
    np.testing.assert_allclose(federated.feature_mean, pooled_x.mean(0), rtol=1e-9)
    if sum(sizes) > 1:
        np.testing.assert_allclose(federated.feature_scale, pooled_x.std(0), rtol=1e-9)
    for column in range(2):
        present = pooled_y[np.isfinite(pooled_y[:, column]), column]
        if len(present) > 1:
            assert federated.target_mean[column] == pytest.approx(present.mean(), rel=1e-9)
            assert federated.target_scale[column] == pytest.approx(present.std(), rel=1e-9)


def test_a_column_that_does_not_vary_becomes_zero_not_noise() -> None:
    features = np.full((4, 2), 0.1, dtype=np.float32)
    features[:, 1] = [0.0, 1.0, 2.0, 3.0]
    standardiser = fit(features, np.zeros((4, 1)))
    assert np.abs(standardiser.features(features)[:, 0]).max() < 1e-6


def test_features_are_clipped() -> None:
    features = np.array([[0.0], [1e-3]] * 5, dtype=np.float32)
    standardiser = fit(features, np.zeros((10, 1)))
    assert standardiser.features(np.array([[1.0], [-1.0]])).ravel().tolist() == [CLIP, -CLIP]


def test_predictions_come_back_in_units() -> None:
    targets = np.array([[40.0], [60.0], [80.0]])
    standardiser = fit(np.ones((3, 1)), targets)
    np.testing.assert_allclose(standardiser.in_units(standardiser.targets(targets)), targets)


def test_a_covariate_far_from_zero_does_not_cancel() -> None:
    kelvin = 453.15 + np.random.default_rng(0).normal(0, 0.01, (60, 1))
    shift = np.array([450.0])
    parts = [Moments.of(part, shift) for part in np.split(kelvin, 3)]
    _, deviation = sum(parts[1:], start=parts[0]).mean_and_deviation(shift)
    assert deviation[0] == pytest.approx(kelvin.std(), rel=1e-9)
