"""Whether a sweep fits a federation: all that can be said of it before any work."""

from __future__ import annotations

import difflib
import itertools
import math
from pathlib import Path

from common.configuration import closest_key, leaves
from common.errors import ConfigurationError
from common.federation import Federation
from simulation.sweep.settings import Sweep
from simulation.sweep.space import PROJECTION, STRATEGY, Space

REFUSED = {
    "name": "a name changes no prediction",
    "targets": "trials that predict other things cannot be compared",
    "privacy": "what labs ask for is no setting to be searched for accuracy's sake",
    "release": "under which licence a model is handed on changes no prediction",
    "simulation": "it is what all trials go through, and no part of the agreement",
    "training.seed": "it decides the folds, which all trials share",
}
"""Keys that no sweep varies, and why; with a table, all keys in it."""

MOST_POINTS = 10_000


def space_of(sweep: Sweep, federation: Federation, folder: Path, source: str) -> Space:
    """Check the keys and values of a sweep against a federation, before any work.

    Parameters
    ----------
    sweep : Sweep
    federation : Federation
        The file's own settings.
    folder : Path
        The folder of the federation file.
    source : str
        The sweep file, as errors name it.

    Raises
    ------
    ConfigurationError
        If a key is unknown, or is none that a sweep varies; if a value is none that the federation
        file allows, in the file's own words; if a grid has too many points; if there is no such
        target.
    """
    if sweep.target is not None and sweep.target not in federation.targets:
        close = difflib.get_close_matches(sweep.target, federation.targets, n=1, cutoff=0.0)
        raise ConfigurationError(
            f"{source}: target: there is no target {sweep.target!r}; the closest is {close[0]!r}"
        )
    for key in sweep.search:
        _check_key(key, source)
    ordered = sorted(sweep.search, key=lambda key: (key != STRATEGY, key != PROJECTION))
    space = Space(
        search={key: sweep.search[key] for key in ordered}, federation=federation, folder=folder
    )
    for key in space.search:
        _check_values(space, key, source)
    if sweep.sampler == "grid":
        _check_points(space, source)
    return space


def _check_key(key: str, source: str) -> None:
    known = leaves(Federation)
    for refused, why in REFUSED.items():
        if key == refused or key.startswith(f"{refused}."):
            raise ConfigurationError(f"{source}: search: {key} cannot be searched over: {why}")
    if key not in known:
        raise ConfigurationError(
            f"{source}: search: unknown key {key!r}; the closest known key is "
            f"{closest_key(key, known)!r}"
        )


def _check_values(space: Space, key: str, source: str) -> None:
    """Try each value beside the first strategy and projection that it has a meaning with."""
    deciding = [name for name in (STRATEGY, PROJECTION) if name in space.search and name != key]
    beside = (
        dict(zip(deciding, chosen, strict=True))
        for chosen in itertools.product(*(space.search[name].labels for name in deciding))
    )
    around = next((found for found in beside if space.is_active(key, found)), {})
    for value in space.search[key].examples:
        try:
            space.with_values({**around, key: value})
        except ConfigurationError as error:
            raise ConfigurationError(f"{source}: search: {str(error).splitlines()[0]}") from error


def _check_points(space: Space, source: str) -> None:
    size = math.prod(len(search.labels) for search in space.search.values())
    if size > MOST_POINTS:
        raise ConfigurationError(
            f"{source}: search: the grid has {size} points, more than {MOST_POINTS}; name fewer "
            'choices, or write sampler = "tpe"'
        )
    for point in space.points():
        try:
            space.federation_of(point)
        except ConfigurationError as error:
            raise ConfigurationError(f"{source}: search: {str(error).splitlines()[0]}") from error
