"""Five ways to predict the same held-out specimens: together, pooled, alone, and two baselines.

Each takes the labs of one fold and returns, for each lab, predictions of its held-out specimens
in the targets' units, of shape (n_held_out, n_targets); NaN where a way has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from client.alone import Predictor, fit_standardiser, train_alone
from client.evaluation import predict_in_units
from client.lab import Lab
from common.federation import STRATEGY_OPTIONS, Federation
from common.garbage import unsearched
from server.rounds import RunOptions
from server.state import RunResult
from simulation.engine import on_grid
from simulation.round_clock import OnRound, timed
from simulation.scenarios.scripted import Scripted, run_scripted

Predictions = list[np.ndarray]

NUM_TREES = 100


def federated(
    labs: Sequence[Lab],
    on_round: OnRound = lambda record, seconds: None,
    on_result: Callable[[RunResult], None] = lambda result: None,
    engine: str = "inprocess",
    scripted: Scripted | None = None,
) -> Predictions:
    """Train across labs that send head weights and sums alone, as a script says if there is one."""
    # folds are anybody's, and nobody lies about them
    options = RunOptions(watcher=timed(on_round), held_out_one_in=1, cross_evaluates=False)
    with unsearched():
        result = on_grid(
            engine,
            {lab.name: lab for lab in labs},
            lambda grid: run_scripted(grid, labs, scripted, options),
        )
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
    predict = train_alone(labs[0].federation, features, targets, "centralized")
    return [predict(lab.held_out.features) for lab in labs]


def local(
    labs: Sequence[Lab], on_predictors: Callable[[list[Predictor]], None] = lambda made: None
) -> Predictions:
    """Train a head for each lab on its own training specimens, with as many passes."""
    predictors = [
        train_alone(lab.federation, lab.training.features, lab.training.targets, lab.name)
        for lab in labs
    ]
    on_predictors(predictors)
    return [predict(lab.held_out.features) for lab, predict in zip(labs, predictors, strict=True)]


def ridge(labs: Sequence[Lab]) -> Predictions:
    """Solve ridge regression across labs by the strategy of that name: one round of sums.

    It equals the fit of pooled data.
    """
    data = labs[0].federation.model_dump()
    data["head"] |= {"hidden": (), "projection": "none", "components": None}
    data["training"] |= {"strategy": "ridge", "rounds": 1}
    data["training"] |= dict.fromkeys({key for keys in STRATEGY_OPTIONS.values() for key in keys})
    agreement = Federation.model_validate(data)
    return federated([replace(lab, federation=agreement) for lab in labs])


def random_forest(labs: Sequence[Lab]) -> Predictions:
    """Fit a random forest on pooled features: the baseline of the essay.

    A tenth of the features are tried at each split, fewer than the third that Breiman (2001)
    advises for regression, of features that repeat each other much.
    """
    from sklearn.ensemble import RandomForestRegressor

    federation = labs[0].federation
    features, targets = pooled(labs)
    standardiser = fit_standardiser(federation, features, targets)
    x, y = standardiser.features(features), standardiser.targets(targets)
    predictions = [np.full(lab.held_out.targets.shape, np.nan) for lab in labs]
    for target in range(y.shape[1]):
        seen = np.isfinite(y[:, target])
        if seen.sum() < 2:
            continue
        forest = RandomForestRegressor(
            NUM_TREES, max_features=0.1, random_state=federation.training.seed, n_jobs=-1
        )
        forest.fit(x[seen], y[seen, target])
        # threads add up their trees in the order in which they finish; one thread does not
        forest.set_params(n_jobs=1)
        for lab, predicted in zip(labs, predictions, strict=True):
            if len(lab.held_out):
                held_out = standardiser.features(lab.held_out.features)
                predicted[:, target] = forest.predict(held_out)
    return [standardiser.in_units(predicted) for predicted in predictions]


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
