"""Five ways to predict the same held-out specimens: together, pooled, alone, and two baselines.

Each takes the labs of one fold and returns, for each lab, predictions of its held-out specimens
in the targets' units, of shape (n_held_out, n_targets); NaN where a way has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from client.evaluation import predict_in_units
from client.lab import Lab
from client.training import plan_for, train_head
from common.federation import Federation
from common.head import federation_shapes, initial_head
from common.seeds import seed_for
from common.standardise import Standardiser
from server.rounds import RunOptions, Watcher, run_federation
from server.state import RoundRecord, RunResult
from simulation.engine import make_grid

Predictions = list[np.ndarray]
OnRound = Callable[[RoundRecord], None]

NUM_COMPONENTS = 256
NUM_TREES = 100


def federated(
    labs: Sequence[Lab],
    on_round: OnRound = lambda record: None,
    on_result: Callable[[RunResult], None] = lambda result: None,
    engine: str = "inprocess",
) -> Predictions:
    """Train across labs that send head weights and sums alone."""
    grid = make_grid(engine, {lab.name: lab for lab in labs})
    watcher = Watcher(counted=on_round)
    result = run_federation(grid, labs[0].federation, RunOptions(watcher=watcher))
    on_result(result)
    nobody_shares = ~np.any([lab.shared_targets for lab in labs], axis=0)
    predictions = [
        predict_in_units(result.head, result.standardiser, lab.held_out.features) for lab in labs
    ]
    for predicted in predictions:
        predicted[:, nobody_shares] = np.nan
    return predictions


def centralized(labs: Sequence[Lab]) -> Predictions:
    """Train one head on the training specimens of all labs pooled: the yardstick.

    It passes as often over each specimen as the federated run does.
    """
    features, targets = pooled(labs)
    predict = _train_alone(labs[0].federation, features, targets, "centralized")
    return [predict(lab.held_out.features) for lab in labs]


def local(labs: Sequence[Lab]) -> Predictions:
    """Train a head for each lab on its own training specimens, with as many passes."""
    predictions = []
    for lab in labs:
        training = lab.training
        predict = _train_alone(lab.federation, training.features, training.targets, lab.name)
        predictions.append(predict(lab.held_out.features))
    return predictions


def ridge(labs: Sequence[Lab]) -> Predictions:
    """Fit principal components and ridge regression on pooled features, one target at a time.

    The penalty is chosen by generalised cross-validation (Golub, Heath & Wahba 1979).
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline

    def model(num_specimens: int, num_features: int, seed: int) -> Any:
        components = min(NUM_COMPONENTS, num_specimens - 1, num_features)
        return make_pipeline(
            PCA(components, random_state=seed), RidgeCV(alphas=np.logspace(-1, 6, 29))
        )

    return _fit_each_target(labs, model)


def random_forest(labs: Sequence[Lab]) -> Predictions:
    """Fit a random forest on pooled features: the baseline of the essay.

    A tenth of the features are tried at each split, fewer than the third that Breiman (2001)
    advises for regression, of features that repeat each other much.
    """
    from sklearn.ensemble import RandomForestRegressor

    def model(num_specimens: int, num_features: int, seed: int) -> Any:
        return RandomForestRegressor(NUM_TREES, max_features=0.1, random_state=seed, n_jobs=-1)

    return _fit_each_target(labs, model)


MODES: dict[str, Callable[[Sequence[Lab]], Predictions]] = {
    "federated": federated,
    "centralized": centralized,
    "local": local,
    "ridge": ridge,
    "random_forest": random_forest,
}


def pooled(labs: Sequence[Lab]) -> tuple[np.ndarray, np.ndarray]:
    """Return the training features and targets of all labs, stacked."""
    return (
        np.concatenate([lab.training.features for lab in labs]),
        np.concatenate([lab.training.targets for lab in labs]),
    )


def _train_alone(
    federation: Federation, features: np.ndarray, targets: np.ndarray, name: str
) -> Callable[[np.ndarray], np.ndarray]:
    training = federation.training
    standardiser = Standardiser.fit(
        features,
        targets,
        feature_shift=federation.feature_shift,
        feature_weight=federation.feature_weight,
        target_shift=federation.target_shift,
    )
    plan = plan_for(
        federation,
        epochs=training.rounds * training.local_epochs,
        seed=seed_for(training.seed, "train", name),
        proximal_mu=0.0,
    )
    head, _ = train_head(
        initial_head(federation_shapes(federation), training.seed),
        standardiser.features(features),
        standardiser.targets(targets),
        plan,
    )
    unseen = ~np.isfinite(targets).any(axis=0)

    def predict(held_out: np.ndarray) -> np.ndarray:
        predicted = predict_in_units(head, standardiser, held_out)
        predicted[:, unseen] = np.nan
        return predicted

    return predict


def _fit_each_target(labs: Sequence[Lab], model: Callable[[int, int, int], Any]) -> Predictions:
    federation = labs[0].federation
    features, targets = pooled(labs)
    standardiser = Standardiser.fit(
        features,
        targets,
        feature_shift=federation.feature_shift,
        feature_weight=federation.feature_weight,
        target_shift=federation.target_shift,
    )
    x, y = standardiser.features(features), standardiser.targets(targets)
    predictions = [np.full(lab.held_out.targets.shape, np.nan) for lab in labs]
    for target in range(y.shape[1]):
        seen = np.isfinite(y[:, target])
        if seen.sum() < 2:
            continue
        fitted = model(int(seen.sum()), x.shape[1], federation.training.seed)
        fitted.fit(x[seen], y[seen, target])
        if "n_jobs" in fitted.get_params():
            # threads add up their trees in the order in which they finish; one thread does not
            fitted.set_params(n_jobs=1)
        for lab, predicted in zip(labs, predictions, strict=True):
            held_out = standardiser.features(lab.held_out.features)
            if len(held_out):
                predicted[:, target] = fitted.predict(held_out)
    return [standardiser.in_units(predicted) for predicted in predictions]
