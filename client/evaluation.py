"""Trying a head on specimens that it was not trained on."""

from __future__ import annotations

import numpy as np

from client.specimens import Specimens
from common.errors import RequestError
from common.federation import Federation
from common.head import HeadArrays, predict
from common.metrics import ErrorSums
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
    if not np.isfinite(predicted).all():
        raise RequestError("the head's predictions are not finite for every specimen")
    return ErrorSums.of(specimens.targets, predicted, federation.target_shift)
