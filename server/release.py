"""What a run releases, made of what it ended with."""

from __future__ import annotations

import numpy as np

from common.bundle import Model
from common.counts import bucketed, in_digits
from common.federation import Federation
from common.provenance import Provenance
from common.release import Release
from common.standardise import Standardiser
from server.evidence import Products
from server.state import RunResult


def release_of(federation: Federation, result: RunResult) -> Release:
    """Return what a run releases: the same whenever it is asked for again.

    Parameters
    ----------
    federation : Federation
    result : RunResult
    """
    labs = tuple(sorted({lab for record in result.history for lab in record.labs}))
    shape = (len(labs), len(federation.targets))
    count, squared = np.zeros(shape), np.zeros(shape)
    if result.products is not None:
        least = federation.privacy.min_specimens
        left_out = left_out_errors(result.products, result.standardiser, least)
        for row, lab in enumerate(labs):
            if lab in left_out:
                count[row], squared[row] = left_out[lab]
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
            num_examples=np.array([result.num_examples.get(lab, 0) for lab in labs], np.float64),
            left_out_count=count,
            left_out_squared=in_digits(squared, 3),
            errors=evaluation.total("errors"),
            baseline=evaluation.total("baseline"),
            calibration=evaluation.total("calibration"),
        ),
        novelty=(None if result.products is None else evaluation.novelty(result.products.novelty)),
        baseline=None if result.products is None else result.products.baseline,
    )


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
