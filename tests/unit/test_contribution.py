"""Shapley values by their axioms, and against the definition over pooled data."""

from itertools import permutations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from common.gram import GramSums
from common.ridge import fit_ridge
from server.contribution import contributions, leave_one_lab_out

WEIGHTS = np.array([3.0, -2.0, 1.0, 0.5])


def data(seed: int, size: int, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    z = generator.normal(size=(size, 4))
    return z, (z @ WEIGHTS + generator.normal(0, noise, size))[:, None]


def labs(**changed: GramSums) -> dict[str, GramSums]:
    sizes = {"aachen": 20, "bremen": 30, "celle": 25}
    return {
        name: GramSums.of(*data(number, size)) for number, (name, size) in enumerate(sizes.items())
    } | changed


def explained(of_labs: dict[str, GramSums], chosen: list[str], at: str) -> float:
    alone = of_labs[at].squares[0] / of_labs[at].counts[0]
    if not chosen:
        return 0.0
    fit = fit_ridge(GramSums.total(of_labs[name] for name in of_labs if name in chosen))
    return max(0.0, 1.0 - float(fit.mean_square_over(of_labs[at])[0]) / float(alone))


def test_values_are_those_of_the_definition_over_all_orders() -> None:
    of_labs = labs(dresden=GramSums.of(*data(7, 12)))
    found = {row.lab: row.value for row in contributions(of_labs, ("strength",))}
    for lab in of_labs:
        values = []
        for at in of_labs:
            if at == lab:
                continue
            others = [name for name in of_labs if name != at]
            steps = []
            for order in permutations(others):
                before = list(order[: order.index(lab)])
                steps.append(
                    explained(of_labs, [*before, lab], at) - explained(of_labs, before, at)
                )
            values.append(np.mean(steps))
        assert found[lab] == pytest.approx(np.mean(values), rel=1e-9)


def test_wrong_labels_are_worth_less_than_nothing_and_no_labels_nothing() -> None:
    z, y = data(9, 40)
    wrong = {row.lab: row for row in contributions(labs(zzz=GramSums.of(z, -y)), ("strength",))}
    assert {lab for lab, row in wrong.items() if row.hurts} == {"zzz"}
    silent = labs(zzz=GramSums.of(z, np.full_like(y, np.nan)))
    assert [row.lab for row in contributions(silent, ("strength",))] == list(labs())


def test_two_labs_are_too_few_and_many_too_many() -> None:
    two = dict(list(labs().items())[:2])
    assert contributions(two, ("strength",)) == []
    many = {str(number): GramSums.of(*data(number, 9)) for number in range(11)}
    assert contributions(many, ("strength",)) == []


def test_without_a_lab_means_fitted_to_all_the_others() -> None:
    of_labs = labs()
    without = leave_one_lab_out(of_labs)["bremen"]
    pooled = [data(0, 20), data(2, 25)]
    sums = GramSums.of(*(np.concatenate(part) for part in zip(*pooled, strict=True)))
    assert_allclose(without.weights, fit_ridge(sums).weights, rtol=1e-9)
    assert leave_one_lab_out({"aachen": of_labs["aachen"]}) == {}
