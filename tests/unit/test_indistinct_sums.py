"""Sums of products for several targets: no combination of them is about few specimens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from client.app import sum_products, sum_statistics
from client.lab import Lab, indistinct, split_lab
from client.specimens import Specimens
from common.components import first_basis
from common.federation import Federation
from common.messages import BasisRequest, GramReply, StatisticsReply, Terms
from common.standardise import Standardiser
from server.screening import check_gram

NUM_FEATURES, NUM_TRAINED, MIN_SPECIMENS = 512, 40, 20
NEEDED = MIN_SPECIMENS // 2
TARGETS = {"strength": "MPa", "modulus": "GPa", "toughness": "kJ/m^2"}


def agreement() -> Federation:
    return Federation.model_validate(
        {
            "name": "sums",
            "targets": {name: {"unit": u, "range": [0, 3000]} for name, u in TARGETS.items()},
            "imaging": {"scale": "fit"},
            "backbone": {"name": "resnet18"},
            "privacy": {"min_specimens": MIN_SPECIMENS},
        }
    )


def lab_with(measured: np.ndarray) -> Lab:
    """Return a lab whose training specimens have these targets; those held out have all."""
    generator = np.random.default_rng(0)
    size = NUM_TRAINED + 10
    targets = generator.normal(600, 50, (size, len(TARGETS)))
    targets[:NUM_TRAINED][~measured] = np.nan
    specimens = Specimens(
        lab="aachen",
        ids=tuple(map(str, range(size))),
        features=generator.normal(size=(size, NUM_FEATURES)).astype(np.float32),
        targets=targets,
        groups=np.arange(size),
    )
    return split_lab(specimens, agreement(), np.arange(size) >= NUM_TRAINED)


def told(lab: Lab) -> tuple[GramReply, StatisticsReply, Standardiser]:
    federation = lab.federation
    terms = Terms.of(federation)
    statistics = StatisticsReply.from_record(
        sum_statistics(lab, terms.to_record()),
        num_features=NUM_FEATURES,
        num_targets=len(TARGETS),
    )
    standardiser = Standardiser.from_moments(
        statistics.features,
        statistics.targets,
        feature_shift=federation.feature_shift,
        feature_weight=federation.feature_weight,
        target_shift=federation.target_shift,
    )
    basis = first_basis(NUM_FEATURES, NUM_TRAINED // 2, 0)
    request = BasisRequest(terms=terms, standardiser=standardiser, basis=basis)
    reply = GramReply.from_record(sum_products(lab, request.to_record()), num_targets=len(TARGETS))
    return reply, statistics, standardiser


def with_missing(*missing: tuple[int, int]) -> np.ndarray:
    measured = np.ones((NUM_TRAINED, len(TARGETS)), dtype=bool)
    for specimen, target in missing:
        measured[specimen, target] = False
    return measured


def overlapping(num_both: int) -> np.ndarray:
    """One target on the first half, another on the second, both on some in the middle."""
    place = np.arange(NUM_TRAINED)
    middle = NUM_TRAINED // 2
    return np.column_stack(
        [place < middle + num_both, place >= middle, np.zeros(NUM_TRAINED, dtype=bool)]
    )


@pytest.mark.parametrize(
    "measured",
    [
        with_missing((7, 1)),
        with_missing((7, 1), (7, 2), (9, 1)),
        *(overlapping(number) for number in (1, 3)),
    ],
)
def test_no_combination_of_sums_is_about_few_specimens(measured: np.ndarray) -> None:
    sums = told(lab_with(measured))[0].sums
    matrices = [sums.everyone, *sums.gram]
    scale = np.abs(sums.everyone).max()
    for weights in np.ndindex(*(3,) * len(matrices)):
        mixed = sum((w - 1) * matrix for w, matrix in zip(weights, matrices, strict=True))
        sizes = np.abs(np.linalg.eigvalsh(mixed))
        if sizes.max() > 1e-9 * scale:
            assert (sizes > 1e-9 * scale).sum() >= NEEDED


def test_one_missing_value_leaves_the_other_sums_as_they_are() -> None:
    whole = told(lab_with(with_missing()))[0].sums
    sums = told(lab_with(with_missing((7, 1))))[0].sums
    assert sums.counts.tolist() == [NUM_TRAINED, NUM_TRAINED - 1, NUM_TRAINED]
    rounding = 1e-12 * np.abs(sums.everyone).max()
    assert np.allclose(sums.gram[0], sums.everyone, atol=rounding)
    share = (NUM_TRAINED - 1) / NUM_TRAINED
    assert np.allclose(sums.gram[1], sums.everyone * share, atol=rounding)
    assert np.corrcoef(sums.cross[1], whole.cross[1])[0, 1] > 0.95


def test_a_group_that_is_large_enough_has_sums_of_its_own() -> None:
    few = with_missing(*((specimen, 1) for specimen in range(NEEDED)))
    sums = told(lab_with(few))[0].sums
    assert not np.allclose(sums.gram[1] / sums.counts[1], sums.everyone / NUM_TRAINED)


@settings(max_examples=25, deadline=None)
@given(arrays(bool, (NUM_TRAINED, len(TARGETS))))
def test_the_coordinator_takes_what_an_honest_lab_tells(measured: np.ndarray) -> None:
    lab = lab_with(measured)
    if lab.shared_targets.any():
        reply, statistics, standardiser = told(lab)
        check_gram(reply, NUM_TRAINED, statistics.targets.count, lab.federation, standardiser)


@given(arrays(bool, st.tuples(st.integers(1, 30), st.integers(1, 4))), st.integers(1, 12))
def test_patterns_are_those_of_enough_specimens(measured: np.ndarray, at_least: int) -> None:
    found = indistinct(measured, at_least)
    patterns, counts = np.unique(found, axis=0, return_counts=True)
    assert found.shape == measured.shape
    assert len(patterns) == 1 or counts.min() >= at_least


def test_a_target_that_few_training_specimens_have_is_not_shared() -> None:
    measured = with_missing(*((specimen, 1) for specimen in range(NEEDED - 1, NUM_TRAINED)))
    lab = lab_with(measured)
    # with the held-out ones there are 19 of 20; without, fewer than half of 20
    assert lab.shared_targets.tolist() == [True, False, True]
    grown = with_missing(*((specimen, 1) for specimen in range(NEEDED, NUM_TRAINED)))
    assert lab_with(grown).shared_targets.tolist() == [True, True, True]


def test_training_specimens_are_standardised_once_by_each_standardiser() -> None:
    lab = lab_with(np.ones((NUM_TRAINED, len(TARGETS)), bool))
    *_, standardiser = told(lab)
    made = lab.standardised(standardiser)
    np.testing.assert_array_equal(made.features, standardiser.features(lab.training.features))
    # the next round's, from another message, is made of the same numbers
    again = replace(standardiser, feature_mean=standardiser.feature_mean.copy())
    assert lab.standardised(again) is made
    moved = replace(standardiser, target_mean=standardiser.target_mean + 1)
    assert (lab.standardised(moved).targets < made.targets).all()
    assert replace(lab, min_specimens=30).standardised(standardiser) is not made
