"""Whether intervals hold: coverage and width at each lab, of specimens that calibrated none.

Scores of one block of held-out specimens are compared with quantiles of the others (cross-conformal
prediction, Vovk 2015, Annals of Mathematics and AI 74, 9), from the counts that labs would send.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from common.intervals import LEVELS, Intervals, score_counts, shrunk
from common.novelty import INSIDE
from simulation.experiment import Outcome

ALL = "all labs"


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How often intervals at one lab held what was measured.

    Attributes
    ----------
    lab, target, unit : str
    level : float
        The share that they were to cover.
    covered : float
        The share that they did.
    width : float
        Mean, in the target's unit.
    num_specimens : int
    """

    lab: str
    target: str
    unit: str
    level: float
    covered: float
    width: float
    num_specimens: int


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """Intervals of every held-out specimen, by quantiles that it had no part in.

    Attributes
    ----------
    lower, upper : list of ndarray of shape (n_levels, n_specimens, n_targets)
        For each lab, in the targets' units; NaN or infinite where there is none.
    """

    lower: list[np.ndarray]
    upper: list[np.ndarray]


@lru_cache(maxsize=1)
def calibrated(outcome: Outcome) -> Calibrated:
    """Calibrate the federated head's intervals, lab by lab and block by block."""
    labs, blocks = outcome.consortium.labs, outcome.blocks
    predicted, spread = outcome.predicted["federated"], outcome.evidence.spread
    scores = [
        np.abs(lab.targets - p) / s for lab, p, s in zip(labs, predicted, spread, strict=True)
    ]
    lower = [np.full((len(LEVELS), *lab.targets.shape), np.nan) for lab in labs]
    upper = [ends.copy() for ends in lower]
    for block in range(max(int(of_lab.max()) for of_lab in blocks) + 1):
        counts = [_counts(s, (b >= 0) & (b != block)) for s, b in zip(scores, blocks, strict=True)]
        everyone = np.sum(counts, axis=0)
        for index, (own, of_lab) in enumerate(zip(counts, blocks, strict=True)):
            rows = of_lab == block
            intervals = Intervals.calibrated(shrunk(own, everyone - own))
            ends = intervals.around(predicted[index][rows], spread[index][rows])
            lower[index][:, rows], upper[index][:, rows] = ends
    return Calibrated(lower=lower, upper=upper)


def coverages(outcome: Outcome, found: Calibrated) -> list[Coverage]:
    """Return coverage and mean width of all labs together and of each, target by target."""
    labs = outcome.consortium.labs
    every = list(range(len(labs)))
    rows = []
    for column, (name, target) in enumerate(outcome.consortium.federation.targets.items()):
        for number, level in enumerate(LEVELS):
            for lab, chosen in [(ALL, every), *((labs[index].lab, [index]) for index in every)]:
                covered, widths = _covered(outcome, found, chosen, (number, column))
                if len(covered):
                    row = Coverage(
                        lab=lab,
                        target=name,
                        unit=target.unit,
                        level=level,
                        covered=float(covered.mean()),
                        width=float(widths.mean()),
                        num_specimens=len(covered),
                    )
                    rows.append(row)
    return rows


@lru_cache(maxsize=1)
def inside_the_domain(outcome: Outcome) -> dict[str, float]:
    """Return the share of each lab's specimens that lie inside the domain of the others' blocks."""
    blocks, scores = outcome.blocks, outcome.evidence.novelty
    inside = [np.full(len(of_lab), np.nan) for of_lab in blocks]
    for block in range(max(int(of_lab.max()) for of_lab in blocks) + 1):
        known = np.concatenate(
            [s[(b >= 0) & (b != block), 0] for s, b in zip(scores, blocks, strict=True)]
        )
        known = known[np.isfinite(known)]
        if len(known) == 0:
            continue
        threshold = np.quantile(known, INSIDE, method="higher")
        for own, score, of_lab in zip(inside, scores, blocks, strict=True):
            own[of_lab == block] = score[of_lab == block, 0] <= threshold
    labs = outcome.consortium.labs
    return {
        lab.lab: float(np.nanmean(own))
        for lab, own in zip(labs, inside, strict=True)
        if np.isfinite(own).any()
    }


def _counts(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return score_counts(scores[rows])


def _covered(
    outcome: Outcome, found: Calibrated, chosen: Sequence[int], place: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return which measured specimens were covered, and how wide their intervals are."""
    number, column = place
    measured = np.concatenate([outcome.consortium.labs[i].targets[:, column] for i in chosen])
    lower = np.concatenate([found.lower[i][number, :, column] for i in chosen])
    upper = np.concatenate([found.upper[i][number, :, column] for i in chosen])
    seen = np.isfinite(measured) & np.isfinite(lower) & np.isfinite(upper)
    inside = (lower <= measured) & (measured <= upper)
    return inside[seen], (upper - lower)[seen]
