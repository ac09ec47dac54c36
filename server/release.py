"""What a run releases, made of what it ended with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np

from common.bundle import Model
from common.counts import bucketed, in_digits
from common.federation import Federation
from common.lab_names import unnamed_labs
from common.provenance import Provenance, TrainingCurve
from common.release import Release
from common.standardise import Standardiser
from server.evidence import Products
from server.state import RoundRecord, RunResult


def release_of(federation: Federation, result: RunResult) -> Release:
    """Return what a run releases: the same whenever it is asked for again.

    Parameters
    ----------
    federation : Federation
    result : RunResult
    """
    labs, rows = _labs(federation, result)
    num_examples, count, squared = np.split(rows, [1, 1 + len(federation.targets)], axis=1)
    evaluation = result.evaluation
    return Release(
        federation=federation,
        model=Model(
            head=result.head,
            standardiser=result.standardiser,
            fingerprint=federation.fingerprint(),
        ),
        provenance=Provenance(
            labs=labs,
            num_examples=num_examples[:, 0],
            left_out_count=count,
            left_out_squared=squared,
            errors=evaluation.total("errors"),
            baseline=evaluation.total("baseline"),
            calibration=evaluation.total("calibration"),
            training=_training(result.history),
        ),
        novelty=(None if result.products is None else evaluation.novelty(result.products.novelty)),
        baseline=None if result.products is None else result.products.baseline,
    )


def _training(history: Sequence[RoundRecord]) -> TrainingCurve:
    """Return what is told of rounds: no names, and no more digits of a loss than are drawn."""
    loss = in_digits(np.array([record.train_loss for record in history]), 3)
    missing = [len(record.failed | record.quarantined) for record in history]
    return TrainingCurve(
        # labs would refuse the whole model for a loss that is not finite
        train_loss=np.where(np.isfinite(loss), loss, np.nan),
        num_missing=np.array(missing, dtype=np.float64),
    )


def _labs(federation: Federation, result: RunResult) -> tuple[tuple[str, ...], np.ndarray]:
    """Return what is told of each lab, and under which names.

    Labs that do not want to be named come last, in the order of what is told of them: a place in
    it says nothing more, and where two rows are equal it does not matter whose is which.

    Returns
    -------
    labs : tuple of str
    rows : ndarray of shape (n_labs, 1 + 2 * n_targets)
        Specimens, and how ridge regression over the others does: specimens, squared errors.
    """
    least, nothing = federation.privacy.min_specimens, np.zeros(len(federation.targets))
    left_out = {}
    if result.products is not None:
        left_out = left_out_errors(result.products, result.standardiser, least)
    told = {}
    for lab in result.took_part:
        count, squared = left_out.get(lab, (nothing, nothing))
        told[lab] = [result.num_examples.get(lab, 0), *count, *in_digits(squared, 3)]
    unnamed = sorted(result.unnamed, key=told.__getitem__, reverse=True)
    named = sorted(told.keys() - unnamed)
    labs = (*named, *islice(unnamed_labs(named), len(unnamed)))
    rows = np.array([told[lab] for lab in (*named, *unnamed)], dtype=np.float64)
    return labs, rows.reshape(len(labs), 1 + 2 * len(nothing))


def left_out_errors(
    products: Products, standardiser: Standardiser, min_specimens: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Tell what a new lab would get: ridge regression over the others, tried on each lab's sums.

    Parameters
    ----------
    products : Products
    standardiser : Standardiser
    min_specimens : int
        A lab is not told of for a target that it, or all others, has fewer specimens of.

    Returns
    -------
    dict of str to pair of ndarray of shape (n_targets,)
        By lab: specimens, and the sum of squared errors in the targets' units, squared.
    """
    found = {}
    everyone = products.total.counts
    for lab, fit in products.left_out.items():
        own = products.of_labs[lab]
        told = (own.counts >= min_specimens) & (everyone - own.counts >= min_specimens)
        mean_square = fit.mean_square_over(own) * standardiser.target_scale**2
        buckets = [bucketed(int(count)) if count else 0 for count in own.counts]
        count = np.where(told, buckets, 0.0)
        found[lab] = count, np.where(told, mean_square, 0.0) * count
    return found
