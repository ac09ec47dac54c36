"""A lab's own head, trained on its own specimens: what joining is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from client.evaluation import predict_in_units
from client.training import plan_for, train_head
from common.bundle import Model
from common.components import product_with
from common.federation import Federation
from common.projection import find_projection, first_head, folded, projected
from common.seeds import seed_for
from common.standardise import Standardiser

Predictor: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""Features as extracted, of shape (n_specimens, n_features), to predictions in units."""


def train_alone(
    federation: Federation, features: np.ndarray, targets: np.ndarray, name: str
) -> Predictor:
    """Train a head on one table, with as many passes as a federated run makes.

    Parameters
    ----------
    federation : Federation
    features : ndarray of shape (n_specimens, n_features), as extracted
    targets : ndarray of shape (n_specimens, n_targets), in the targets' units, NaN = missing
    name : str
        Of the stream that batches are drawn from.

    Returns
    -------
    Predictor
        NaN for a target that the table does not have.
    """
    own = train_own_model(federation, features, targets, name)
    unseen = ~np.isfinite(targets).any(axis=0)

    def predict(held_out: np.ndarray) -> np.ndarray:
        predicted = predict_in_units(own.head, own.standardiser, held_out)
        predicted[:, unseen] = np.nan
        return predicted

    return predict


def train_own_model(
    federation: Federation, features: np.ndarray, targets: np.ndarray, name: str
) -> Model:
    """Train a head as `train_alone` does, and return it with the standardiser of its table."""
    training = federation.training
    standardiser = fit_standardiser(federation, features, targets)
    plan = plan_for(
        federation,
        epochs=training.rounds * training.local_epochs,
        seed=seed_for(training.seed, "train", name),
        proximal_mu=0.0,
    )
    x = standardiser.features(features)
    projection = find_projection(federation, len(x), lambda basis: product_with(x, basis))
    trained, _ = train_head(
        first_head(federation),
        projected(x, projection),
        standardiser.targets(targets),
        plan,
    )
    return Model(
        head=folded(trained, projection),
        standardiser=standardiser,
        fingerprint=federation.fingerprint(),
    )


def fit_standardiser(
    federation: Federation, features: np.ndarray, targets: np.ndarray
) -> Standardiser:
    """Return the standardiser of one table."""
    return Standardiser.fit(
        features,
        targets,
        feature_shift=federation.feature_shift,
        feature_weight=federation.feature_weight,
        target_shift=federation.target_shift,
    )
