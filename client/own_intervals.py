"""Intervals of a lab's own version of a model: calibrated at the lab, and whether they hold there.

A lab's quantiles are of its own scores and of a share of those that the other labs told: pooled
quantiles alone under-cover at labs that differ, and a small lab's own are noise.
"""

from __future__ import annotations

import numpy as np

from client.evaluation import calibrate, second_half
from client.lab import Lab
from client.uncertainty import spread_in_units
from common.errors import RequestError
from common.intervals import GRID, LEVELS, Intervals, score_counts, shrunk
from common.release import Release
from common.report.content import CalibrationRow


def own_intervals(
    lab: Lab, release: Release, tried: np.ndarray, stays_alone: np.ndarray
) -> Intervals:
    """Calibrate on the lab's held-out specimens, and on a share of what the others told.

    Parameters
    ----------
    lab : Lab
    release : Release
    tried : ndarray of shape (n_held_out, n_targets), in the targets' units
        Each held-out specimen by the version that was chosen without it, or by the lab's own head.
    stays_alone : ndarray of shape (n_targets,), bool
        Targets that are predicted by a head of the lab's own: other labs' scores say nothing of it.
    """
    scores, _ = _scores(lab, release, tried)
    others = _of_others(lab, release, stays_alone)
    return Intervals.calibrated(shrunk(score_counts(scores), others))


def own_coverage(
    lab: Lab, release: Release, tried: np.ndarray, stays_alone: np.ndarray
) -> tuple[CalibrationRow, ...]:
    """Try on each half of the held-out specimens the intervals that the other half gives.

    Parameters
    ----------
    lab : Lab
    release : Release
    tried : ndarray of shape (n_held_out, n_targets), in the targets' units
    stays_alone : ndarray of shape (n_targets,), bool

    Returns
    -------
    tuple of CalibrationRow
        None of a target, or a level, that no specimen has an interval for.
    """
    scores, spread = _scores(lab, release, tried)
    others = _of_others(lab, release, stays_alone)
    second = second_half(lab.held_out, lab.federation.training.seed)
    quantile = np.empty((len(LEVELS), *tried.shape))
    for half in (second, ~second):
        own = score_counts(scores[~half])
        quantile[:, half] = Intervals.calibrated(shrunk(own, others)).quantile[:, None]
    widths = 2 * quantile * spread
    told = np.isfinite(scores) & np.isfinite(widths)
    held = scores <= quantile
    return tuple(
        CalibrationRow(
            target=target,
            level=level,
            coverage=float(held[number, seen, column].mean()),
            num_specimens=int(seen.sum()),
            mean_width=float(widths[number, seen, column].mean()),
            lab=lab.name,
        )
        for column, target in enumerate(lab.federation.targets)
        for number, level in enumerate(LEVELS)
        if (seen := told[number, :, column]).any()
    )


def _scores(lab: Lab, release: Release, tried: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return residuals over their spread, and the spread, of shape (n_held_out, n_targets)."""
    head, standardiser = release.model.head, release.model.standardiser
    spread = spread_in_units(head, standardiser, lab.held_out.features, lab.federation)
    return np.abs(lab.held_out.targets - tried) / spread, spread


def _of_others(lab: Lab, release: Release, stays_alone: np.ndarray) -> np.ndarray:
    """Return everyone's counts without those that this lab may tell, which are among them.

    Where the lab's policy keeps its counts back, that leaves a little less of the others'.
    """
    told, model = release.provenance.calibration, release.model
    nothing = np.zeros((len(stays_alone), len(GRID) + 1))
    others = nothing if told is None else told.counts.sum(axis=0)
    try:
        mine = lab.told_held_out()
    except RequestError:
        # too few to be told of: none of them are in it
        mine = lab.held_out.take(np.zeros(len(lab.held_out), dtype=bool))
    own = calibrate(model.head, model.standardiser, mine, lab.federation, None)
    others = np.maximum(others - own.counts.sum(axis=0), 0.0)
    return np.where(stays_alone[:, None], 0.0, others)
