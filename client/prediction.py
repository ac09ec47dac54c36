"""What a released model says of specimens: values, intervals, and whether it can know."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from client.choice import SHARED
from client.reading.cells import parse_number
from common.errors import ConfigurationError, LabDataError, StateError, UnitError
from common.federation import Federation
from common.intervals import Intervals
from common.release import ReleasedModel
from common.units import convert, symbol

if TYPE_CHECKING:
    # torch comes with it
    from client.alone import Predictor
    from client.own_version import OwnVersion

NO_COUNTS = "no lab told counts of scores, so that there are no intervals"
TOO_FEW = "there were too few held-out specimens for an interval"
NO_NOVELTY = "no lab told sums of products, so that nobody knows what is inside the domain"

_QUANTITY = re.compile(r"\s*([^\s°µ%A-Za-z]\S*?)\s*((?:[°µ%A-Za-z].*)?)")


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What is predicted of some specimens.

    Attributes
    ----------
    specimens : tuple of str
    values : ndarray of shape (n_specimens, n_targets), float64
        In the targets' units.
    lower, upper : ndarray of shape (n_levels, n_specimens, n_targets)
        Ends of the intervals, in the order of `LEVELS`; NaN where there is none.
    inside : ndarray of shape (n_specimens,), bool, or None
        Which are inside the domain; None where nobody knows.
    """

    specimens: tuple[str, ...]
    values: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    inside: np.ndarray | None


def predict_specimens(
    released: ReleasedModel,
    own: OwnVersion | None,
    specimens: Sequence[str],
    features: np.ndarray,
) -> Predictions:
    """Predict from features.

    Parameters
    ----------
    released : ReleasedModel
    own : OwnVersion or None
        The lab's own version; None predicts by the model as all labs have it.
    specimens : sequence of str
    features : ndarray of shape (n_specimens, n_features), as extracted

    Raises
    ------
    StateError
        If the model overflows: its weights are finite and far from any that were trained.
    """
    from client.uncertainty import spread_in_units

    model, standardiser = released.model, released.model.standardiser
    values = predictor_of(released, own)(features)
    intervals = released.intervals if own is None else own.intervals
    quantile = np.full((2, values.shape[1]), np.inf) if intervals is None else intervals.quantile
    spread = spread_in_units(model.head, standardiser, features, released.federation)
    if not (np.isfinite(values).all() and np.isfinite(spread).all()):
        raise StateError(
            "the model's predictions are not finite, so that it cannot be used; ask whoever "
            "released it"
        )
    lower, upper = Intervals(quantile=quantile).around(values, spread)
    novelty = released.novelty
    return Predictions(
        specimens=tuple(specimens),
        values=values,
        lower=np.where(np.isfinite(lower), lower, np.nan),
        upper=np.where(np.isfinite(upper), upper, np.nan),
        inside=None if novelty is None else novelty.inside(standardiser.features(features)),
    )


def predictor_of(released: ReleasedModel, own: OwnVersion | None) -> Predictor:
    """Return what predicts: the lab's own version, or the model as all labs have it."""
    from client.evaluation import predict_in_units

    if own is not None:
        return own.predict
    return partial(predict_in_units, released.model.head, released.model.standardiser)


def remarks_on_model(released: ReleasedModel, own: OwnVersion | None) -> list[str]:
    """Say what version predicted, what the model cannot tell, and why."""
    remarks = remarks_on_versions(released, own)
    intervals = released.intervals if own is None else own.intervals
    if intervals is None:
        remarks.append(NO_COUNTS)
    elif not np.isfinite(intervals.quantile).all():
        bare = ~np.isfinite(intervals.quantile).all(axis=0)
        names = np.array(list(released.federation.targets))[bare].tolist()
        remarks.append(f"{', '.join(names)}: {TOO_FEW}")
    if released.novelty is None:
        remarks.append(NO_NOVELTY)
    return remarks


def remarks_on_versions(released: ReleasedModel, own: OwnVersion | None) -> list[str]:
    """Say which targets are predicted otherwise than by the model as all labs have it."""
    return [
        f"{target} is predicted by this lab's own version: {version}"
        for target, version in versions_of(released, own).items()
        if version != SHARED
    ]


def versions_of(released: ReleasedModel, own: OwnVersion | None) -> dict[str, str]:
    """Return the version that predicts each target."""
    targets = released.federation.targets
    chosen = (SHARED,) * len(targets) if own is None else own.chosen
    return dict(zip(targets, chosen, strict=True))


def read_covariates(given: Sequence[str], federation: Federation) -> np.ndarray:
    """Read covariates as they are given on the command line.

    Parameters
    ----------
    given : sequence of str
        Such as ``"cure_temperature=180 degC"``; the unit may be left out only where there is none.
    federation : Federation

    Returns
    -------
    ndarray of shape (n_covariates,), float64, in the federation's units and order

    Raises
    ------
    ConfigurationError
        If one is missing, unknown, given twice, no quantity, or out of its range.

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
    >>> read_covariates(["cure=453.15 K"], federation).round(6).tolist()
    [180.0]
    """
    found: dict[str, float] = {}
    for text in given:
        name, sign, quantity = text.partition("=")
        name = name.strip()
        if not sign or name not in federation.covariates:
            known = ", ".join(federation.covariates) or "none"
            raise ConfigurationError(f"--covariate {text!r}: the model's covariates are: {known}")
        if name in found:
            raise ConfigurationError(f"--covariate {name} is given twice")
        found[name] = _quantity(name, quantity, federation)
    for name, covariate in federation.covariates.items():
        if name not in found:
            raise ConfigurationError(
                f"the model needs {name}, from {_range(name, federation)}; write "
                f'--covariate {name}="{covariate.range[0]:g} {covariate.unit}" (or another value)'
            )
    return np.array([found[name] for name in federation.covariates], dtype=np.float64)


def _quantity(name: str, text: str, federation: Federation) -> float:
    agreed, where = federation.covariates[name], f"--covariate {name}"
    match = _QUANTITY.fullmatch(text)
    try:
        number = parse_number(match[1]) if match else None
    except LabDataError as error:
        raise ConfigurationError(f"{where}: {error}") from error
    if match is None or number is None:
        raise ConfigurationError(f"{where}: {text!r} is no number with a unit, such as 180 degC")
    unit = match[2].strip() or "dimensionless"
    try:
        value = float(convert(np.array([number]), unit, agreed.unit)[0])
    except UnitError as error:
        raise ConfigurationError(f"{where}: {error}; the model has {agreed.unit}") from error
    if not agreed.range[0] <= value <= agreed.range[1]:
        raise ConfigurationError(
            f"{where}: {value:g} {symbol(agreed.unit)} is outside of what the labs agreed on, "
            f"{_range(name, federation)}"
        )
    return value


def _range(name: str, federation: Federation) -> str:
    agreed = federation.covariates[name]
    return f"{agreed.range[0]:g} to {agreed.range[1]:g} {symbol(agreed.unit)}".strip()
