"""Ridge regression and principal components from sums equal those of pooled data."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from common.components import PASSES, first_basis, num_components, orthonormal, product_with
from common.gram import GramSums
from common.ridge import PENALTIES, fit_ridge

SIZES = (17, 40, 23)


def labs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw features that live near a plane, as those of one network do, and two targets."""
    generator = np.random.default_rng(4)
    plane = generator.normal(size=(6, 50)) * np.array([9, 7, 5, 4, 3, 2])[:, None]
    weights = generator.normal(size=(50, 2))
    made = []
    for number, size in enumerate(SIZES):
        features = generator.normal(number, 1, (size, 6)) @ plane
        features += generator.normal(0, 0.1, features.shape)
        targets = features @ weights + generator.normal(0, 5, (size, 2))
        targets[:number, 1] = np.nan
        made.append((features, targets))
    made[1][1][:, 0] = np.nan
    return made


def basis_of(features: list[np.ndarray]) -> np.ndarray:
    basis = first_basis(50, num_components(50, sum(SIZES)), seed=0)
    for _ in range(PASSES):
        products = [product_with(values, basis) for values in features]
        basis = orthonormal(sum(products[1:], start=products[0]))
    return basis


def test_components_across_labs_are_those_of_pooled_features() -> None:
    apart = [features for features, _ in labs()]
    pooled = np.concatenate(apart)
    assert_allclose(basis_of(apart), basis_of([pooled]), atol=1e-9)
    # and span what an exact decomposition finds
    exact = np.linalg.svd(pooled, full_matrices=False)[2][:6]
    assert_allclose(np.linalg.norm(exact @ basis_of(apart), axis=1), 1.0, atol=1e-9)


def test_spread_along_components_is_that_of_a_pooled_pca() -> None:
    apart = labs()
    basis = basis_of([features for features, _ in apart])
    sums = [GramSums.of(features @ basis, targets) for features, targets in apart]
    _, covariance = sum(sums[1:], start=sums[0]).mean_and_covariance()
    found = np.sort(np.linalg.eigvalsh(covariance))[::-1]
    pooled = np.concatenate([features for features, _ in apart])
    exact = PCA(6).fit(pooled).explained_variance_ * (len(pooled) - 1) / len(pooled)
    # two passes come that near to an exact decomposition
    assert_allclose(found[:6], exact, rtol=1e-6)


def test_ridge_across_labs_is_that_of_pooled_data() -> None:
    apart = labs()
    basis = basis_of([features for features, _ in apart])
    sums = [GramSums.of(features @ basis, targets) for features, targets in apart]
    fit = fit_ridge(sum(sums[1:], start=sums[0]))
    pooled = np.concatenate([features for features, _ in apart]) @ basis
    targets = np.concatenate([targets for _, targets in apart])
    for target in range(2):
        seen = np.isfinite(targets[:, target])
        # scikit-learn's solution, by other means
        model = Ridge(alpha=fit.penalty[target], solver="svd")
        model.fit(pooled[seen], targets[seen, target])
        assert_allclose(fit.weights[target], model.coef_, rtol=1e-9)
        assert_allclose(fit.intercept[target], model.intercept_, rtol=1e-9)
        left = targets[seen, target] - model.predict(pooled[seen])
        assert_allclose(fit.mean_square[target], (left**2).mean(), rtol=1e-9)


def test_the_penalty_is_the_best_by_generalised_cross_validation() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, 20))
    y = x @ generator.normal(size=20) + generator.normal(0, 6, 60)
    centred, values = x - x.mean(axis=0), y - y.mean()

    def score(penalty: float) -> float:
        hat = centred @ np.linalg.inv(centred.T @ centred + penalty * np.eye(20)) @ centred.T
        left = values - hat @ values
        return float(60 * left @ left / (60 - 1 - np.trace(hat)) ** 2)

    fit = fit_ridge(GramSums.of(x, y[:, None]))
    assert fit.penalty[0] == min(PENALTIES, key=score)
    assert PENALTIES[0] < fit.penalty[0] < PENALTIES[-1]


def test_a_target_that_nobody_measured_is_predicted_by_its_mean() -> None:
    fit = fit_ridge(GramSums.of(np.ones((5, 2)), np.full((5, 1), np.nan)))
    assert fit.weights.tolist() == [[0.0, 0.0]] and fit.intercept.tolist() == [0.0]
    assert np.isnan(fit.mean_square[0])


@pytest.mark.parametrize(("features", "specimens", "found"), [(10, 4, 2), (2560, 1, 1)])
def test_the_number_of_components(features: int, specimens: int, found: int) -> None:
    assert num_components(features, specimens) == found


def test_equal_specimens_leave_one_direction() -> None:
    basis = first_basis(5, 2, seed=0)
    assert orthonormal(product_with(np.ones((4, 5)), basis)).shape == (5, 1)
