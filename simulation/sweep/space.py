"""The space of a sweep: from what Optuna keeps of a trial to the federation that it tries."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from common.configuration import leaves, parse
from common.federation import FILE_NAME, STRATEGY_OPTIONS, Federation
from simulation.sweep.settings import Search, Value, label_of

STRATEGY = "training.strategy"
PROJECTION = "head.projection"
COMPONENTS = "head.components"

UNUSED_BY_RIDGE = {
    "head.hidden",
    "head.dropout",
    "head.projection",
    "head.components",
    "training.rounds",
    "training.local_epochs",
    "training.optimizer",
    "training.learning_rate",
    "training.weight_decay",
    "training.batch_size",
}
"""It solves a linear head in one round."""

Params = dict[str, Value]
"""One trial: what Optuna keeps for each key that has a meaning in it."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """What is searched, and the federation around it.

    Attributes
    ----------
    search : mapping of str to Search
        By dotted key; strategy and projection come first, since other keys belong to them.
    federation : Federation
        The file's own settings.
    folder : Path
        Where a relative path of a weights file starts.
    """

    search: Mapping[str, Search]
    federation: Federation
    folder: Path

    def is_active(self, key: str, params: Mapping[str, Value]) -> bool:
        """Tell whether a key has a meaning beside a trial's strategy and projection."""
        strategy = str(params.get(STRATEGY, self.federation.training.strategy))
        if strategy == "ridge" and key in UNUSED_BY_RIDGE:
            return False
        if key == COMPONENTS:
            return params.get(PROJECTION, self.federation.head.projection) != "none"
        option = key.removeprefix("training.")
        owned = itertools.chain.from_iterable(STRATEGY_OPTIONS.values())
        return option not in set(owned) or option in STRATEGY_OPTIONS.get(strategy, ())

    def distribution(self, key: str) -> BaseDistribution:
        """Return what Optuna draws a key from."""
        search = self.search[key]
        if search.low is None or search.high is None:
            return CategoricalDistribution(tuple(search.labels))
        if float in _types(leaves(Federation)[key]):
            return FloatDistribution(float(search.low), float(search.high), log=search.log)
        return IntDistribution(int(search.low), int(search.high), log=search.log)

    def federation_of(self, params: Mapping[str, Value]) -> Federation:
        """Return the federation that a trial tries.

        What belongs to another strategy than the trial's, or to a projection that it has not, is
        left away, and ridge gets its one round and its head without hidden layers.

        Raises
        ------
        ConfigurationError
            If the federation file does not allow it, in the file's own words.
        """
        return self.with_values({key: self.search[key].value_of(v) for key, v in params.items()})

    def with_values(self, values: Mapping[str, Any]) -> Federation:
        """Return the federation with some keys changed, checked like a file that is read."""
        strategy = values.get(STRATEGY, self.federation.training.strategy)
        # what is no text is told of when all is checked, below
        own_options = STRATEGY_OPTIONS.get(str(strategy), ())
        others = {option for options in STRATEGY_OPTIONS.values() for option in options}
        changes: dict[str, Any] = {
            f"training.{option}": None for option in others.difference(own_options)
        }
        if strategy == "ridge":
            changes |= {"head.hidden": (), "training.rounds": 1, PROJECTION: "none"}
        projection = {PROJECTION: self.federation.head.projection, **changes, **values}[PROJECTION]
        if projection == "none":
            changes[COMPONENTS] = None
        data = self.federation.model_dump()
        for key, value in {**changes, **values}.items():
            *tables, last = key.split(".")
            table = data
            for name in tables:
                table = table[name]
            table[last] = tuple(value) if isinstance(value, list) else value
        changed = parse(Federation, data, FILE_NAME)
        backbone = changed.backbone
        if backbone.sha256 is None:
            return changed
        beside = self.folder.absolute() / backbone.weights
        return changed.replace(backbone=backbone.replace(weights=str(beside)).model_dump())

    def own(self) -> Params | None:
        """Return the file's own settings as a trial, or None where they lie outside the space."""
        params: Params = {}
        for key, search in self.search.items():
            if not self.is_active(key, params):
                continue
            value: Any = self.federation.model_dump(mode="json")
            for name in key.split("."):
                value = value[name]
            if key == COMPONENTS:
                value = self.federation.head.num_components
            if search.low is None or search.high is None:
                value = label_of(value)
                if value not in search.labels:
                    return None
            elif value is None or not search.low <= value <= search.high:
                return None
            params[key] = value
        return params

    def points(self) -> Iterator[Params]:
        """Return the points of a grid, each once: what has no meaning in one makes no other."""
        seen = set()
        for labels in itertools.product(*(search.labels for search in self.search.values())):
            point: Params = {}
            for key, label in zip(self.search, labels, strict=True):
                if self.is_active(key, point):
                    point[key] = label
            if (known := tuple(point.items())) not in seen:
                seen.add(known)
                yield point


def _types(annotation: Any) -> set[Any]:
    inner = get_args(annotation)
    return {annotation}.union(*(_types(part) for part in inner)) if inner else {annotation}
