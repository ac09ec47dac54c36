"""What each lab contributes, and what a new lab would get, from the sums of ridge regression.

Data Shapley (Ghorbani & Zou 2019, ICML, arXiv 1904.02868) over labs, exactly: a coalition of labs
is worth how well a fit to its sums predicts labs that it has not seen, so that no lab is judged
by its own specimens. A fit that is worse than the mean is worth nothing, not less: whoever has it
would take the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import scipy.linalg

from common.gram import GramSums
from common.ridge import RidgeFit, fit_ridge

MOST_LABS = 10
"""Each further lab doubles the coalitions."""

DIMENSIONS = 64

CLEARLY = -0.01
"""On the demo and the real sets no honest lab is worth less (python -m benchmarks.sums). Labs whose
labels have been shuffled are, on the demo; among few labs that differ much, or without features
that tell, such a lab may pass: a flag says that something is wrong, and no flag says nothing."""


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """What one lab brings to the prediction of one target at the other labs.

    Attributes
    ----------
    lab, target : str
    value : float
        Shapley value: the share of the target's variance at labs that a model has not seen, which
        this lab's specimens explain. Negative: the others do better without it.
    """

    lab: str
    target: str
    value: float

    @property
    def hurts(self) -> bool:
        """Whether its presence hurts: its specimens are worth less than none."""
        return self.value < CLEARLY


def leave_one_lab_out(of_labs: Mapping[str, GramSums]) -> dict[str, RidgeFit]:
    """Fit to the sums of all labs but one, for each: what a new lab would get.

    Empty for a single lab.
    """
    if len(of_labs) < 2:
        return {}
    fits: dict[str, RidgeFit] = {}
    _fit_without(list(of_labs.items()), None, fits)
    return {lab: fits[lab] for lab in of_labs}


def _fit_without(
    labs: Sequence[tuple[str, GramSums]], others: GramSums | None, fits: dict[str, RidgeFit]
) -> None:
    """Fit without each of these labs, given the sums of all labs but these.

    Halves are halved again: of a thousand labs each sum takes ten additions, not a thousand.
    """
    if len(labs) == 1:
        assert others is not None  # of two labs or more
        fits[labs[0][0]] = fit_ridge(others)
        return
    half = len(labs) // 2
    for inside, outside in ((labs[:half], labs[half:]), (labs[half:], labs[:half])):
        beside = GramSums.total(sums for _, sums in outside)
        _fit_without(inside, beside if others is None else others + beside, fits)


def contributions(of_labs: Mapping[str, GramSums], targets: tuple[str, ...]) -> list[Contribution]:
    """Return exact Shapley values of all labs, target by target.

    Labs without a target have none for it. Empty with fewer than three labs or more than
    `MOST_LABS`.
    """
    if not 3 <= len(of_labs) <= MOST_LABS:
        return []
    labs = list(of_labs)
    sums = _leading(list(of_labs.values()))
    explained = _explained(sums)
    found = []
    for column, target in enumerate(targets):
        measured = [index for index in range(len(labs)) if sums[index].counts[column] > 0]
        for lab in measured:
            others = [other for other in measured if other != lab]
            if len(others) >= 2:
                values = [_shapley(lab, other, measured, explained, column) for other in others]
                found.append(
                    Contribution(lab=labs[lab], target=target, value=float(np.mean(values)))
                )
    return found


def _shapley(
    lab: int,
    other: int,
    measured: list[int],
    explained: Mapping[frozenset[int], np.ndarray],
    column: int,
) -> float:
    """Return a lab's Shapley value for the prediction of one other lab."""
    rest = [index for index in measured if index not in (lab, other)]
    total = 0.0
    for size in range(len(rest) + 1):
        weight = 1.0 / (comb(len(rest), size) * (len(rest) + 1))
        for chosen in combinations(rest, size):
            without = explained[frozenset(chosen)][other, column]
            total += weight * (explained[frozenset((*chosen, lab))][other, column] - without)
    return total


def _explained(sums: list[GramSums]) -> dict[frozenset[int], np.ndarray]:
    """Return, for each coalition, the share of variance explained at every lab and target."""
    nothing = _nothing(sums[0])
    unexplained = np.array([nothing.mean_square_over(each) for each in sums])
    found = {}
    for size in range(len(sums)):
        for chosen in combinations(range(len(sums)), size):
            fit = fit_ridge(GramSums.total(sums[index] for index in chosen)) if chosen else nothing
            left = np.array([fit.mean_square_over(each) for each in sums])
            share = 1.0 - left / np.where(unexplained > 0, unexplained, np.nan)
            found[frozenset(chosen)] = np.maximum(share, 0.0)
    return found


def _leading(sums: list[GramSums]) -> list[GramSums]:
    """Keep the directions in which all labs together vary most."""
    _, covariance = GramSums.total(sums).mean_and_covariance()
    _, vectors = scipy.linalg.eigh(covariance)
    directions = vectors[:, ::-1][:, :DIMENSIONS]
    return [each.along(directions) for each in sums]


def _nothing(like: GramSums) -> RidgeFit:
    num_targets, side = like.cross.shape
    zeros = np.zeros(num_targets)
    return RidgeFit(
        weights=np.zeros((num_targets, side - 1)), intercept=zeros, penalty=zeros, mean_square=zeros
    )
