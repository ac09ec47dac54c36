"""Intervals: a quantile of all labs' scores from counts, coverage, and lab by lab."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from client.evaluation import calibrate
from client.specimens import Specimens
from client.uncertainty import FLOOR, PASSES, dropout_spread, spread_in_units
from common.federation import Federation, Head
from common.gram import GramSums
from common.head import forward, head_shapes, initial_head
from common.intervals import GRID, Intervals, coverage, quantiles, score_counts, shrunk
from common.novelty import INSIDE, Novelty
from common.seeds import seed_for
from common.standardise import Standardiser


def test_the_quantile_across_labs_is_that_of_pooled_scores_on_the_grid() -> None:
    generator = np.random.default_rng(1)
    apart = [generator.gamma(2, 0.5, (size, 2)) for size in (9, 31, 60)]
    counted = sum(score_counts(scores) for scores in apart)
    pooled = np.sort(np.concatenate(apart), axis=0)
    for level, found in zip((0.8, 0.9), quantiles(np.asarray(counted)), strict=True):
        exact = pooled[int(np.ceil(101 * level)) - 1]
        # the next edge of the grid, so never below and at most a step above
        assert (found >= exact).all() and (found < exact * GRID[1] / GRID[0]).all()


def test_intervals_cover_what_they_say() -> None:
    generator = np.random.default_rng(2)
    intervals = Intervals.calibrated(score_counts(np.abs(generator.normal(size=(2000, 1)))))
    measured = generator.normal(50.0, 4.0, (2000, 1))
    lower, upper = intervals.around(np.full((2000, 1), 50.0), np.full((2000, 1), 4.0))
    inside = ((lower <= measured) & (measured <= upper)).mean(axis=(1, 2))
    assert_allclose(inside, [0.8, 0.9], atol=0.03)
    counts = score_counts(np.abs(measured - 50.0) / 4.0)
    assert_allclose(coverage(counts, intervals.quantile)[:, 0], inside)


def test_too_few_specimens_give_an_interval_without_end() -> None:
    # 0.9 needs nine scores at least: ceil(0.9 * (9 + 1)) = 9
    assert quantiles(score_counts(np.ones((8, 1))), (0.9,)) == np.inf
    assert quantiles(score_counts(np.ones((9, 1))), (0.9,)) == pytest.approx(1.0, rel=0.08)


def test_a_lab_with_many_specimens_trusts_itself_and_one_with_few_the_others() -> None:
    everyone = score_counts(np.full((500, 1), 1.0))
    few, many = (score_counts(np.full((size, 1), 4.0)) for size in (2, 400))
    assert quantiles(shrunk(few, everyone), (0.8,)) == pytest.approx(1.0, rel=0.08)
    assert quantiles(shrunk(many, everyone), (0.8,)) == pytest.approx(4.0, rel=0.08)
    # a lab with none has everyone's
    none = np.zeros_like(everyone)
    assert shrunk(none, everyone).sum() == 20.0


def federation(dropout: float) -> Federation:
    return Federation.model_validate(
        {
            "name": "test",
            "targets": {"strength": {"unit": "MPa", "range": [0, 200]}},
            "imaging": {"scale": "fit"},
            "backbone": {"name": "resnet18"},
            "head": {"hidden": [4], "dropout": dropout},
        }
    )


def standardiser(num_features: int) -> Standardiser:
    ones = np.ones(num_features)
    return Standardiser(
        feature_mean=0 * ones,
        feature_scale=ones,
        feature_weight=ones,
        target_mean=np.array([100.0]),
        target_scale=np.array([10.0]),
    )


def test_a_specimen_is_as_unsure_alone_as_among_others() -> None:
    head = initial_head(head_shapes(6, 1, Head(hidden=(8,))), seed=0)
    head["1.weight"] = np.ones((1, 8), np.float32)
    features = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    together = dropout_spread(head, features, 0.2, seed=3)
    assert (together > 0).all()
    assert_allclose(dropout_spread(head, features[2:3], 0.2, seed=3), together[2:3], rtol=1e-5)
    # one hidden unit, kept or dropped: the deviation of a Bernoulli variable times its share
    one = {
        "0.weight": np.ones((1, 1), np.float32),
        "0.bias": np.zeros(1, np.float32),
        "1.weight": np.ones((1, 1), np.float32),
        "1.bias": np.zeros(1, np.float32),
    }
    found = dropout_spread(one, np.array([[2.0]], np.float32), 0.5, seed=0)
    assert found[0, 0] == pytest.approx(2.0, rel=0.05)


def test_the_spread_is_that_of_whole_heads_with_hidden_units_dropped() -> None:
    head = initial_head(head_shapes(6, 2, Head(hidden=(8, 4))), seed=0)
    head["2.weight"] = np.ones((2, 4), np.float32)
    features = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    generator = torch.Generator().manual_seed(seed_for(3, "spread"))
    outputs = []
    for _ in range(PASSES):
        thin = {name: torch.from_numpy(array) for name, array in head.items()}
        for layer, width in ((1, 8), (2, 4)):
            kept = torch.rand(width, generator=generator) >= 0.2
            thin[f"{layer}.weight"] = thin[f"{layer}.weight"] * kept / 0.8
        outputs.append(forward(thin, torch.from_numpy(features)).double().numpy())
    expected = np.std(outputs, axis=0)
    assert (expected > 0).all()
    assert_allclose(dropout_spread(head, features, 0.2, seed=3), expected, rtol=1e-5)


def test_calibration_counts_each_measured_specimen_once_and_keeps_groups_in_one_half() -> None:
    agreement = federation(dropout=0.0)
    features = np.zeros((6, agreement.num_features), np.float32)
    measured = np.array([100.0, 102.0, 96.0, np.nan, 104.0, 100.0])[:, None]
    lab = Specimens(
        lab="celle",
        ids=tuple("abcdef"),
        features=features,
        targets=measured,
        groups=np.array([0, 0, 0, 1, 1, 1]),
    )
    head = initial_head(head_shapes(agreement.num_features, 1, agreement.head), seed=0)
    scale = standardiser(agreement.num_features)
    sums = calibrate(head, scale, lab, agreement, None)
    # the head predicts 100: scores are |0, 2, 4| / (10 floor) in one half, |4, 0| in the other
    assert sorted(sums.counts.sum(axis=(1, 2)).tolist()) == [2.0, 3.0]
    expected = score_counts(np.array([0.0, 2.0, 4.0, 4.0, 0.0])[:, None] / (10 * FLOOR))
    assert_array_equal(sums.counts.sum(axis=0), expected)
    assert sums.spreads.sum() == pytest.approx(5 * 10 * FLOOR)
    assert sums.novelty.sum() == 0
    assert_allclose(spread_in_units(head, scale, features, agreement), 10 * FLOOR)


def test_novelty_across_labs_is_the_mahalanobis_distance_of_pooled_features() -> None:
    generator = np.random.default_rng(5)
    apart = [generator.normal(size=(size, 3)) * [5.0, 2.0, 1.0] for size in (30, 50)]
    sums = [GramSums.of(x, np.zeros((len(x), 1))) for x in apart]
    novelty = Novelty.of(sums[0] + sums[1], np.eye(3))
    pooled = np.concatenate(apart)
    offset = pooled - pooled.mean(axis=0)
    covariance = np.cov(pooled.T, bias=True)
    exact = np.sqrt(np.einsum("ni,ij,nj->n", offset, np.linalg.inv(covariance), offset))
    assert_allclose(novelty.score(pooled), exact, rtol=1e-9)
    # normal features: so many are inside as are meant to be
    assert novelty.inside(pooled).mean() == pytest.approx(INSIDE, abs=0.04)
    assert not novelty.inside(np.array([[40.0, 0.0, 0.0]])).any()


def test_a_threshold_from_held_out_specimens_replaces_that_of_a_normal_distribution() -> None:
    sums = GramSums.of(np.random.default_rng(0).normal(size=(80, 2)), np.zeros((80, 1)))
    novelty = Novelty.of(sums, np.eye(2))
    assert novelty.threshold == pytest.approx(2.448, abs=1e-3)
    found = novelty.calibrated(score_counts(np.full((100, 1), 7.0))[0])
    assert found.threshold == pytest.approx(7.0, rel=0.08)
    too_few = novelty.calibrated(score_counts(np.full((3, 1), 7.0))[0])
    assert too_few.threshold == novelty.threshold


def test_what_varies_in_no_lab_is_outside_the_domain() -> None:
    generator = np.random.default_rng(2)
    num_features, sizes = 200, np.array([20.0, 9.0, 4.0, 3.0, 2.0, 1.0])
    axes = np.linalg.qr(generator.normal(size=(num_features, num_features)))[0]
    known, unknown = axes[:, : len(sizes)], axes[:, -1]

    def specimens(number: int) -> np.ndarray:
        noise = 0.1 * generator.normal(size=(number, num_features))
        varied = generator.normal(size=(number, len(sizes))) * np.sqrt(sizes)
        return np.asarray(varied @ known.T + noise)

    trained, held_out = specimens(48), specimens(200)
    basis = np.linalg.svd(trained, full_matrices=False)[2][:12].T
    sums = GramSums.of(trained @ basis, np.zeros((len(trained), 1)))
    variance = float(sizes.sum() + 0.01 * num_features)
    found = Novelty.of(sums, basis, variance)
    novelty = found.calibrated(score_counts(found.score(held_out)[:, None])[0])
    assert novelty.inside(held_out).mean() == pytest.approx(INSIDE, abs=0.04)
    strange = 6.0 * unknown[None]
    assert not novelty.inside(strange).any()
    # along the leading directions alone it lies in the middle
    without = replace(novelty, residual=0.0, threshold=3.0)
    assert without.inside(strange).all()


def test_nothing_is_left_over_beside_a_whole_basis() -> None:
    sums = GramSums.of(np.random.default_rng(0).normal(size=(80, 2)), np.zeros((80, 1)))
    assert Novelty.of(sums, np.eye(2)).residual == 0.0
    assert Novelty.of(sums, np.eye(3)[:, :2], variance=5.0).residual > 0.0
