"""A lab's own head, trained on its own specimens: what joining is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from client.evaluation import predict_in_units
from client.training import plan_for, train_head
from common.bundle import Model
from common.components import num_components, principal_basis, product_with
from common.federation import Federation
from common.gram import GramSums
from common.head import HeadArrays
from common.projection import find_projection, first_head, folded, projected
from common.ridge import fit_ridge
from common.seeds import seed_for
from common.standardise import Standardiser
from common.threads import one_thread

Predictor: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""Features as extracted, of shape (n_specimens, n_features), to predictions in units."""


def train_alone(
    federation: Federation, features: np.ndarray, targets: np.ndarray, name: str
) -> Predictor:
    """Train a head on one table, with as many passes as a federated run makes.

    Where the federation solves ridge regression, so does this.

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
    standardiser = fit_standardiser(federation, features, targets)
    x, y = standardiser.features(features), standardiser.targets(targets)
    solved = federation.training.strategy == "ridge"
    return Model(
        head=_solved(federation, x, y) if solved else _trained(federation, x, y, name),
        standardiser=standardiser,
        fingerprint=federation.fingerprint(),
    )


def _trained(federation: Federation, x: np.ndarray, y: np.ndarray, name: str) -> HeadArrays:
    training = federation.training
    plan = plan_for(
        federation,
        epochs=training.rounds * training.local_epochs,
        seed=seed_for(training.seed, "train", name),
        proximal_mu=0.0,
    )
    projection = find_projection(federation, len(x), lambda basis: product_with(x, basis))
    trained, _ = train_head(first_head(federation), projected(x, projection), y, plan)
    return folded(trained, projection)


def _solved(federation: Federation, x: np.ndarray, y: np.ndarray) -> HeadArrays:
    """Solve ridge regression as the strategy does over all labs."""
    basis = principal_basis(
        lambda basis: product_with(x, basis),
        federation.num_features,
        num_components(federation.num_features, len(x), num_targets=y.shape[1]),
        federation.training.seed,
    )
    assert basis is not None  # one table tells itself everything
    with one_thread():
        return fit_ridge(GramSums.of(x @ basis, y)).head(basis)


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
