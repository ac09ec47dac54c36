"""The sweep file: which keys of a federation file are searched over, and how."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from common.configuration import Section, parse, read_toml
from common.federation import Duration, Name

DEFAULT_TRIALS = 40

Value = int | float | str
"""Of a key in a trial, as Optuna keeps it: a number of a range, or the label of a choice."""


class Search(Section):
    """What one key is searched over: a range of numbers, or some choices.

    Examples
    --------
    >>> Search(choices=(["fedavg"], "median", 64)).labels
    {'["fedavg"]': ['fedavg'], 'median': 'median', '64': 64}
    """

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    choices: tuple[Any, ...] | None = None

    @model_validator(mode="after")
    def _a_range_or_choices(self) -> Search:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("a key has choices, or low and high; remove one of them")
            if not self.choices:
                raise ValueError("choices is empty; name what is to be tried")
            if len(self.labels) < len(self.choices):
                raise ValueError(f"one choice stands twice in {list(self.choices)}")
        elif self.low is None or self.high is None:
            raise ValueError("write low and high, or choices")
        elif not self.low < self.high:
            raise ValueError(f"low must be below high, found {self.low} and {self.high}")
        elif self.log and self.low <= 0:
            raise ValueError(f"log needs a low above zero, found {self.low}")
        return self

    @property
    def labels(self) -> dict[str, Any]:
        """Each choice by what it is called; Optuna keeps no lists."""
        return {label_of(choice): choice for choice in self.choices or ()}

    @property
    def examples(self) -> tuple[Any, ...]:
        """Values to check the key with: every choice, or the ends of the range."""
        return (self.low, self.high) if self.choices is None else self.choices

    def value_of(self, kept: Value) -> Any:
        """Return the value that the federation file gets for what Optuna keeps."""
        return kept if self.choices is None else self.labels[str(kept)]


class Sweep(Section):
    """The whole sweep file.

    ``folds`` asks for an estimate over so many outer folds, each with a study of its own, beside
    the study that decides. ``target`` is the one whose RMSE is minimised; without it the mean over
    targets of RMSE by spread is. ``processes`` decides what a trial knows of the ones before it,
    and belongs to what makes a sweep repeat itself.
    """

    search: dict[str, Search] = Field(min_length=1)
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    trials: int | None = Field(default=None, ge=1, le=100_000)
    processes: int = Field(default=2, ge=1, le=1024)
    seed: int = Field(default=0, ge=0, lt=2**32)
    target: Name | None = None
    folds: int | None = Field(default=None, ge=2, le=1000)
    inner_folds: int = Field(default=3, ge=2, le=1000)
    trial_deadline: Duration = "1 h"

    @model_validator(mode="before")
    @classmethod
    def _tables_may_be_nested(cls, data: Any) -> Any:
        """Take ``[search.training.rounds]`` for ``[search."training.rounds"]``."""
        if isinstance(data, Mapping) and isinstance(data.get("search"), Mapping):
            return {**data, "search": _flat(data["search"])}
        return data

    @model_validator(mode="after")
    def _a_grid_tries_all_of_its_points(self) -> Sweep:
        if self.sampler != "grid":
            return self
        if self.trials is not None:
            raise ValueError("a grid tries all of its points; remove trials")
        for key, search in self.search.items():
            if search.choices is None:
                raise ValueError(f"a grid needs choices = [...] for {key}, found a range")
        return self

    @model_validator(mode="after")
    def _processes_have_work(self) -> Sweep:
        if self.sampler != "grid" and self.processes > self.num_trials:
            raise ValueError(
                f"processes = {self.processes} are more than the {self.num_trials} trials; "
                "lower processes"
            )
        return self

    @property
    def num_trials(self) -> int:
        """Of each study that is no grid."""
        return self.trials or DEFAULT_TRIALS

    def digest(self) -> str:
        """Return the SHA-256 of all that choices follow from; comments and order aside.

        A deadline that was too short may be made longer, and the sweep goes on.
        """
        text = json.dumps(self.model_dump(mode="json", exclude={"trial_deadline"}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file; whether it fits a federation is `checking.space_of`'s affair.

    Raises
    ------
    ConfigurationError
        Names each wrong key, the rule and the value found.
    """
    return parse(Sweep, read_toml(path), str(path))


def label_of(choice: Any) -> str:
    """Return what a choice is called: itself where it is text, else as JSON."""
    return choice if isinstance(choice, str) else json.dumps(choice, default=str)


def _flat(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, inner in tables.items():
        is_prefix = isinstance(inner, Mapping) and inner and not set(inner) & {*Search.model_fields}
        if is_prefix and all(isinstance(value, Mapping) for value in inner.values()):
            found |= _flat(inner, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = inner
    return found
