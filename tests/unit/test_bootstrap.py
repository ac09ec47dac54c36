"""The interval of a gain: how often it finds a difference where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from client.verdict import CONFIDENCE, FEWEST_GROUPS, bootstrap

RUNS = 1500


@pytest.mark.parametrize(("number", "most"), [(FEWEST_GROUPS, 0.105), (8, 0.08), (20, 0.07)])
def test_few_groups_seldom_find_a_difference_where_there_is_none(number: int, most: float) -> None:
    generator = np.random.default_rng(number)
    found = 0
    for run in range(RUNS):
        low, high = bootstrap(generator.normal(size=number), np.arange(number), run)
        found += not low <= 0 <= high
    # plain quantiles would in 0.155, 0.127 and 0.060 of the runs, and 1 - CONFIDENCE is promised
    assert found / RUNS < most
    assert found / RUNS > 0.4 * (1 - CONFIDENCE)


def test_specimens_of_one_group_do_not_make_the_interval_narrower() -> None:
    differences = np.random.default_rng(0).normal(1.0, 1.0, 8)
    once = bootstrap(differences, np.arange(8), seed=1)
    many = bootstrap(np.repeat(differences, 50), np.repeat(np.arange(8), 50), seed=1)
    assert many == pytest.approx(once)


def test_one_group_tells_nothing_of_chance() -> None:
    assert bootstrap(np.array([1.0, 3.0]), np.zeros(2, dtype=np.int64), seed=0) == (2.0, 2.0)
