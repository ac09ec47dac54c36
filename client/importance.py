"""Why does the model say so? What it leans on, over a lab's own specimens, which stay at the lab.

Permutation importance (Breiman 2001; Fisher, Rudin & Dominici 2019, JMLR 20, 177) in the targets'
units, and partial dependence (Friedman 2001, Annals of Statistics 29, 1189) of what has a name.
Both tell of the model and not of the material: of two features that go together, it may use one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from client.alone import Predictor
from client.specimens import Specimens
from common.errors import LabDataError
from common.federation import Federation
from common.seeds import seed_for

DEEP = "deep features"
POINTS = 15
INNER = (0.05, 0.95)
"""Quantiles between which partial dependence is told: beyond, few specimens are like that."""

Kind = Literal["deep", "descriptor", "covariate"]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Features that are looked at together.

    Attributes
    ----------
    name : str
    kind : str
        ``deep`` (all of the network's), ``descriptor`` or ``covariate``.
    unit : str or None
        None for deep features, which have none.
    columns : slice
        Of the feature vector.
    """

    name: str
    kind: Kind
    unit: str | None
    columns: slice


@dataclass(frozen=True, kw_only=True)
class Importance:
    """How much worse predictions get when a group's values are dealt out anew among specimens.

    Attributes
    ----------
    groups : tuple of Group
    num_specimens : ndarray of shape (n_targets,)
        With each target measured.
    mae : ndarray of shape (n_targets,)
        With nothing dealt out; NaN for a target that the lab has not measured.
    increase, spread : ndarray of shape (n_groups, n_targets)
        Mean and standard deviation, over repeats, of what the mean absolute error grows by; in
        the targets' units.
    """

    groups: tuple[Group, ...]
    num_specimens: np.ndarray
    mae: np.ndarray
    increase: np.ndarray
    spread: np.ndarray


@dataclass(frozen=True, kw_only=True)
class PartialDependence:
    """What the model says on average if all specimens had one value of a feature.

    Attributes
    ----------
    group : Group
    values : ndarray of shape (n_points,), in the feature's unit
    predicted : ndarray of shape (n_points, n_targets), in the targets' units
    """

    group: Group
    values: np.ndarray
    predicted: np.ndarray


def feature_groups(federation: Federation) -> tuple[Group, ...]:
    """Return the groups of a feature vector, in its order.

    Examples
    --------
    >>> federation = Federation.model_validate(
    ...     {
    ...         "name": "example",
    ...         "targets": {"strength": {"unit": "MPa", "range": [0, 3000]}},
    ...         "covariates": {"cure": {"unit": "degC", "range": [20, 250]}},
    ...         "imaging": {"scale": "fit"},
    ...         "backbone": {"name": "resnet18"},
    ...     }
    ... )
    >>> [(group.name, group.columns.start) for group in feature_groups(federation)]
    [('deep features', 0), ('cure', 512)]
    """
    first = federation.num_deep_features
    groups = [Group(name=DEEP, kind="deep", unit=None, columns=slice(0, first))]
    for index, (name, unit) in enumerate(federation.named_features.items(), start=first):
        kind: Kind = "descriptor" if name in federation.descriptors.names else "covariate"
        groups.append(Group(name=name, kind=kind, unit=unit, columns=slice(index, index + 1)))
    return tuple(groups)


def permutation_importance(
    predict: Predictor, specimens: Specimens, federation: Federation, *, repeats: int = 20
) -> Importance:
    """Deal out each group's values among a lab's specimens, and measure what that costs.

    The same dealing for all targets and, in each repeat, for all groups.

    Parameters
    ----------
    predict : Predictor
        What is explained: of features as extracted, predictions in units.
    specimens : Specimens
    federation : Federation
    repeats : int

    Raises
    ------
    LabDataError
        If there are fewer than two specimens.
    """
    if len(specimens) < 2:
        raise LabDataError(f"{len(specimens)} specimen(s): there is nothing to deal out")
    groups = feature_groups(federation)
    before = _mae(predict, specimens.features, specimens.targets)
    increases = np.empty((repeats, len(groups), len(federation.targets)))
    for repeat in range(repeats):
        seed = seed_for(federation.training.seed, "importance", str(repeat))
        order = np.random.default_rng(seed).permutation(len(specimens))
        for index, group in enumerate(groups):
            dealt = specimens.features.copy()
            dealt[:, group.columns] = dealt[order, group.columns]
            increases[repeat, index] = _mae(predict, dealt, specimens.targets) - before
    return Importance(
        groups=groups,
        num_specimens=np.isfinite(specimens.targets).sum(axis=0),
        mae=before,
        increase=increases.mean(axis=0),
        spread=increases.std(axis=0),
    )


def partial_dependence(
    predict: Predictor, specimens: Specimens, federation: Federation
) -> tuple[PartialDependence, ...]:
    """Return how predictions follow each descriptor and covariate, the others as they are.

    Parameters
    ----------
    predict : Predictor
    specimens : Specimens
    federation : Federation
    """
    found = []
    for group in feature_groups(federation):
        if group.kind == "deep":
            continue
        low, high = np.quantile(specimens.features[:, group.columns], INNER).tolist()
        values = np.unique(np.linspace(low, high, POINTS))
        means = []
        for value in values:
            changed = specimens.features.copy()
            changed[:, group.columns] = value
            means.append(predict(changed).mean(axis=0))
        found.append(PartialDependence(group=group, values=values, predicted=np.stack(means)))
    return tuple(found)


def _mae(predict: Predictor, features: np.ndarray, targets: np.ndarray) -> np.ndarray:
    error = np.abs(predict(features) - targets)
    count = np.isfinite(error).sum(axis=0)
    mae: np.ndarray = np.nansum(error, axis=0) / np.where(count > 0, count, np.nan)
    return mae
