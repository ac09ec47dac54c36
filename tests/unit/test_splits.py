import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.splits import fold_of_each, held_out_of
from common.errors import LabDataError


@given(
    groups=st.lists(st.integers(0, 30), min_size=30, max_size=200).filter(
        lambda groups: len(set(groups)) >= 5
    ),
    seed=st.integers(0, 1000),
)
def test_groups_stay_together_and_every_fold_has_specimens(groups: list[int], seed: int) -> None:
    numbers = np.array(groups)
    folds = fold_of_each(numbers, folds=5, lab="a", seed=seed)
    assert set(folds.tolist()) == set(range(5))
    for group in set(groups):
        assert len(set(folds[numbers == group].tolist())) == 1


def test_independent_specimens_are_dealt_evenly() -> None:
    folds = fold_of_each(np.arange(57), folds=5, lab="a", seed=0)
    assert sorted(np.bincount(folds).tolist()) == [11, 11, 11, 12, 12]


def test_the_lab_and_the_seed_decide() -> None:
    groups = np.arange(40)
    first = fold_of_each(groups, folds=5, lab="a", seed=0)
    assert (first == fold_of_each(groups, folds=5, lab="a", seed=0)).all()
    assert (first != fold_of_each(groups, folds=5, lab="b", seed=0)).any()
    assert (first != fold_of_each(groups, folds=5, lab="a", seed=1)).any()


def test_a_group_that_is_most_of_a_lab_is_trained_on() -> None:
    groups = np.array([0] * 60 + list(range(1, 41)))
    for seed in range(10):
        fold = fold_of_each(groups, folds=5, lab="a", seed=seed)
        assert held_out_of(fold).sum() == 10
        assert not held_out_of(fold)[:60].any()
    # else it is the first fold, as ever
    even = fold_of_each(np.arange(57), folds=5, lab="a", seed=0)
    assert (held_out_of(even) == (even == 0)).all()


def test_too_few_groups_are_named() -> None:
    with pytest.raises(LabDataError, match="a: 2 independent specimens cannot be split into 5"):
        fold_of_each(np.array([1, 1, 1, 2, 2, 2]), folds=5, lab="a", seed=0)
