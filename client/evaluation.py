"""Trying a head on specimens that it was not trained on."""

from __future__ import annotations

import numpy as np

from client.specimens import Specimens
from client.splits import fold_of_each
from client.uncertainty import spread_in_units
from common.errors import RequestError
from common.federation import Federation
from common.head import HeadArrays, predict
from common.intervals import CalibrationSums, score_counts
from common.metrics import ErrorSums
from common.novelty import Novelty
from common.standardise import Standardiser


def predict_in_units(
    head: HeadArrays, standardiser: Standardiser, features: np.ndarray
) -> np.ndarray:
    """Return predictions in the targets' units.

    Parameters
    ----------
    head : mapping of name to ndarray
    standardiser : Standardiser
    features : ndarray of shape (n_specimens, n_features), as extracted

    Returns
    -------
    ndarray of shape (n_specimens, n_targets), float64
    """
    return standardiser.in_units(predict(head, standardiser.features(features)))


def evaluate(
    head: HeadArrays, standardiser: Standardiser, specimens: Specimens, federation: Federation
) -> ErrorSums:
    """Return the sums of a head's errors on some specimens.

    Raises
    ------
    RequestError
        If a prediction is not finite. Which specimens count must follow from what was measured
        alone: a head that overflows for some of them would choose whom the sums are about.
    """
    predicted = predict_in_units(head, standardiser, specimens.features)
    _require_finite(predicted)
    return ErrorSums.of(specimens.targets, predicted, federation.target_shift)


def calibrate(
    head: HeadArrays,
    standardiser: Standardiser,
    specimens: Specimens,
    federation: Federation,
    novelty: Novelty | None,
) -> CalibrationSums:
    """Count the scores of a head's residuals, and of novelty, on two halves of some specimens.

    Specimens that share material are in one half.

    Raises
    ------
    RequestError
        If a prediction is not finite.
    """
    predicted = predict_in_units(head, standardiser, specimens.features)
    _require_finite(predicted)
    spread = spread_in_units(head, standardiser, specimens.features, federation)
    scores = np.abs(specimens.targets - predicted) / spread
    second = second_half(specimens, federation.training.seed)
    seen = np.where(np.isfinite(specimens.targets), spread, 0.0)
    strange = np.full((len(specimens), 1), np.nan)
    if novelty is not None:
        strange[:, 0] = novelty.score(standardiser.features(specimens.features))
    return CalibrationSums(
        counts=np.stack([score_counts(scores[~second]), score_counts(scores[second])]),
        spreads=np.stack([seen[~second].sum(axis=0), seen[second].sum(axis=0)]),
        novelty=score_counts(strange)[0],
    )


def second_half(specimens: Specimens, seed: int) -> np.ndarray:
    """Return which specimens are in the second of two halves that share no group.

    Returns
    -------
    ndarray of shape (n_specimens,), bool
    """
    if len(set(specimens.groups.tolist())) < 2:
        return np.zeros(len(specimens), dtype=bool)
    name = f"{specimens.lab}, halves"
    halves: np.ndarray = fold_of_each(specimens.groups, folds=2, lab=name, seed=seed) == 1
    return halves


def _require_finite(predicted: np.ndarray) -> None:
    if not np.isfinite(predicted).all():
        raise RequestError("the head's predictions are not finite for every specimen")
