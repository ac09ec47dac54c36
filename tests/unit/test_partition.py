"""Specimens cut into virtual labs: sizes, mixes of values, and groups that stay whole."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.dataset import Dataset, Micrograph
from common.configuration import parse
from common.errors import ConfigurationError
from common.federation import Federation
from simulation.scenarios.partition import dirichlet, iid, power_law
from simulation.scenarios.scenario import Scenario
from simulation.scenarios.virtual_labs import cut

FEDERATION = Federation.model_validate(
    {
        "name": "test",
        "targets": {
            "strength": {"unit": "MPa", "range": [0, 200]},
            "modulus": {"unit": "GPa", "range": [0, 200]},
        },
        "imaging": {"scale": "fit"},
        "backbone": {"name": "resnet18"},
        "privacy": {"min_specimens": 5},
    }
)


def dataset(name: str, size: int, groups: np.ndarray | None = None, **more: Any) -> Dataset:
    ids = tuple(f"{name}{row}" for row in range(size))
    values = np.random.default_rng(size).normal(100, 10, (size, 2))
    return Dataset(
        name=name,
        folder=Path(name),
        settings=None,  # type: ignore[arg-type]
        specimens=ids,
        micrographs=tuple(
            (Micrograph(path=Path(id_), name=id_, sha256=id_, um_per_px=None),) for id_ in ids
        ),
        targets=values,
        covariates=np.zeros((size, 0)),
        groups=np.arange(size) if groups is None else groups,
        partition=more.get("partition"),
    )


def scenario(**table: Any) -> Scenario:
    return parse(Scenario, table, "[simulation]")


def labs_of(datasets: list[Dataset], **table: Any) -> list[str]:
    found = cut(datasets, FEDERATION, scenario(**table))
    return [name for part in found for name in part.partition or ()]


def test_iid_labs_are_equal_in_size_and_alike() -> None:
    values = np.arange(600.0)
    of_each = iid(np.arange(600), 6, seed=3)
    assert np.bincount(of_each).tolist() == [100] * 6
    means = [values[of_each == lab].mean() for lab in range(6)]
    assert max(means) - min(means) < 100


def test_a_power_law_by_hand() -> None:
    # 60 of 100 are left beside 10 for each, and dealt out as 1 : 1/2 : 1/3 : 1/4
    sizes = np.bincount(power_law(np.arange(100), 4, 1.0, 10, seed=0))
    np.testing.assert_allclose(sizes, [38.8, 24.4, 19.6, 17.2], atol=1.0)
    assert sizes.sum() == 100


@pytest.mark.parametrize(("alpha", "low", "high"), [(0.05, 0.5, 1.0), (1000.0, 0.0, 0.05)])
def test_a_small_alpha_makes_labs_differ(alpha: float, low: float, high: float) -> None:
    values = np.random.default_rng(0).normal(size=1000)
    of_each = dirichlet(np.arange(1000), values, 10, alpha, seed=0)
    assert np.bincount(of_each).tolist() == [100] * 10
    between = np.var([values[of_each == lab].mean() for lab in range(10)]) / values.var()
    assert low <= between <= high


def test_values_that_are_missing_are_dealt_out_too() -> None:
    values = np.where(np.arange(100) % 2, np.nan, np.arange(100.0))
    assert np.bincount(dirichlet(np.arange(100), values, 4, 0.5, seed=0)).tolist() == [25] * 4
    nothing = np.full(40, np.nan)
    assert np.bincount(dirichlet(np.arange(40), nothing, 4, 0.5, seed=0)).tolist() == [10] * 4


@pytest.mark.parametrize("partition", ["iid", "dirichlet", "power_law"])
def test_material_that_is_shared_stays_in_one_lab(partition: str) -> None:
    groups = np.repeat(np.arange(30), 3)
    named = np.array(labs_of([dataset("a", 90, groups)], partition=partition, labs=4))
    for group in range(30):
        assert len(set(named[groups == group])) == 1
    assert min(Counter(named).values()) >= 5


def test_the_same_seed_cuts_alike_and_another_does_not() -> None:
    datasets = [dataset("a", 40), dataset("b", 30)]
    first = labs_of(datasets, partition="iid", labs=3, seed=1)
    assert labs_of(datasets, partition="iid", labs=3, seed=1) == first
    assert labs_of(datasets, partition="iid", labs=3, seed=2) != first
    assert set(first) == {"lab-001", "lab-002", "lab-003"}


def test_a_target_may_be_named() -> None:
    data = dataset("a", 200)
    named = {
        target: np.array(labs_of([data], partition="dirichlet", labs=4, alpha=0.05, target=target))
        for target in FEDERATION.targets
    }

    def between(target: str, column: int) -> float:
        labs = named[target]
        means = [data.targets[labs == lab, column].mean() for lab in sorted(set(labs))]
        return float(np.var(means) / data.targets[:, column].var())

    assert between("strength", 0) > 5 * between("strength", 1)
    assert between("modulus", 1) > 5 * between("modulus", 0)


def test_the_column_cuts_as_the_folders_say() -> None:
    pooled = dataset("p", 12, partition=("north",) * 6 + ("south",) * 6)
    assert labs_of([pooled]) == ["north"] * 6 + ["south"] * 6
    assert labs_of([dataset("a", 6), dataset("b", 7)]) == ["a"] * 6 + ["b"] * 7


@pytest.mark.parametrize(
    ("datasets", "table", "sentence"),
    [
        (
            [dataset("a", 20), dataset("b", 10)],
            {"partition": "iid", "labs": 7},
            "labs = 7 cannot be cut from 30 specimens: each needs privacy.min_specimens = 5, so "
            "that at most 6 can be",
        ),
        (
            [dataset("a", 30, np.repeat([0, 1], [28, 2]))],
            {"partition": "iid", "labs": 2},
            "lab-002 would have 2 specimens, fewer than privacy.min_specimens = 5",
        ),
        ([dataset("a", 20)], {}, "only one lab was found"),
        ([dataset("a", 20), dataset("a", 21)], {}, "two labs are named a"),
        ([dataset("a", 9), dataset("b", 9)], {"leave": {"c": 2}}, "leave names the lab 'c'"),
    ],
)
def test_what_the_data_rules_out_is_one_sentence(
    datasets: list[Dataset], table: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(sentence)):
        labs_of(datasets, **table)
