"""The table ``[simulation]``: virtual labs by partition, and what befalls them.

It stands in ``federation.toml`` beside the agreement, and only a simulation reads it. Where a table
of labs may stand, a number alone goes for each of them; in such a table, the name ``every`` stands
for those that have no number of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from common.configuration import Section, parse
from common.errors import ConfigurationError
from common.federation import FILE_NAME, Name, Positive, Unit, read_simulation

EVERY = "every"

FOR_EVERY = ("label_noise", "feature_shift", "dropout")
"""Keys whose tables may name it; elsewhere a lab is named, or nothing is."""

MOST_LABS = 10_000

PARTITION_OPTIONS = {
    "column": (),
    "iid": ("labs",),
    "dirichlet": ("labs", "alpha", "target"),
    "power_law": ("labs", "exponent"),
}
"""Ways to cut specimens into virtual labs, and the keys that belong to each."""

ATTACKS_WITH_FACTOR = ("scaled", "label_scale")


def _for_every_lab(given: Any) -> Any:
    if not isinstance(given, int | float | Mapping):
        raise ValueError(f"must be a number, or a table of labs and numbers; found {given!r}")
    return {EVERY: given} if isinstance(given, int | float) else given


def _as_tuple(given: Any) -> Any:
    return tuple(given) if isinstance(given, list) else given


Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(ge=0, le=10)]
Factor = Annotated[float, Field(ge=1, le=1e6)]
RoundNumber = Annotated[int, Field(ge=1)]
Rounds = Annotated[tuple[RoundNumber, ...], BeforeValidator(_as_tuple)]


class UnitMistake(Section):
    """A lab that writes a target's values in `unit`, and takes them for the federation's."""

    target: Name
    unit: Unit


class Hostile(Section):
    """A lab that wants the run to fail, or to have the model for nothing.

    ``sign_flip`` sends its update the wrong way round, ``scaled`` `factor` times as long,
    ``no_numbers`` NaN; ``free_rider`` sends back the head that it was sent, and claims its
    specimens; ``label_scale`` trains on values `factor` times as high.
    """

    attack: Literal["sign_flip", "scaled", "no_numbers", "label_scale", "free_rider"]
    factor: Annotated[float, Field(ge=-1e6, le=1e6)] | None = None
    from_round: RoundNumber = 1

    @model_validator(mode="after")
    def _options_belong_to_the_attack(self) -> Hostile:
        if (self.attack in ATTACKS_WITH_FACTOR) != (self.factor is not None):
            raise ValueError(
                f"factor belongs to {' and '.join(ATTACKS_WITH_FACTOR)}, which need one; the "
                f'attack is "{self.attack}"'
            )
        if self.attack == "label_scale" and self.from_round != 1:
            raise ValueError(
                f"label_scale lies in a lab's own table from the beginning; remove from_round = "
                f"{self.from_round}"
            )
        return self


class Scenario(Section):
    """The whole table."""

    partition: Literal["column", "iid", "dirichlet", "power_law"] = "column"
    labs: int | None = Field(default=None, ge=2, le=MOST_LABS)
    alpha: Annotated[float, Field(gt=0, le=1e6)] | None = None
    target: Name | None = None
    exponent: float | None = Field(default=None, ge=0, le=10)
    seed: int | None = Field(default=None, ge=0, lt=2**32)
    label_noise: Annotated[dict[Name, Share], BeforeValidator(_for_every_lab)] = Field(
        default_factory=dict
    )
    unit_mistake: dict[Name, UnitMistake] = Field(default_factory=dict)
    feature_shift: Annotated[dict[Name, Share], BeforeValidator(_for_every_lab)] = Field(
        default_factory=dict
    )
    dropout: Annotated[dict[Name, Probability], BeforeValidator(_for_every_lab)] = Field(
        default_factory=dict
    )
    away: dict[Name, Rounds] = Field(default_factory=dict)
    leave: dict[Name, RoundNumber] = Field(default_factory=dict)
    seconds_per_specimen: Positive | None = None
    speed_spread: float | None = Field(default=None, ge=0, le=3)
    slow: dict[Name, Factor] = Field(default_factory=dict)
    hostile: dict[Name, Hostile] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _options_belong_to_the_partition(self) -> Scenario:
        allowed = PARTITION_OPTIONS[self.partition]
        for option in ("labs", "alpha", "target", "exponent"):
            if getattr(self, option) is not None and option not in allowed:
                owners = [name for name, keys in PARTITION_OPTIONS.items() if option in keys]
                raise ValueError(
                    f"{option} belongs to {', '.join(owners)}, and the partition is "
                    f'"{self.partition}"'
                )
        if self.partition != "column" and self.labs is None:
            raise ValueError(f'partition = "{self.partition}" needs labs, their number')
        return self

    @model_validator(mode="after")
    def _times_have_a_scale(self) -> Scenario:
        for option in ("speed_spread", "slow"):
            if getattr(self, option) and self.seconds_per_specimen is None:
                raise ValueError(
                    f"{option} needs seconds_per_specimen, of which it is a multiple; without it "
                    "labs take no time"
                )
        return self

    @model_validator(mode="after")
    def _who_has_left_does_nothing_more(self) -> Scenario:
        for lab, last in self.leave.items():
            later = [number for number in self.away.get(lab, ()) if number >= last]
            if later:
                raise ValueError(
                    f"{lab} leaves for good in round {last}, and cannot be away in round "
                    f"{later[0]} too"
                )
            hostile = self.hostile.get(lab)
            if hostile is not None and hostile.from_round >= last:
                raise ValueError(
                    f"{lab} leaves for good in round {last}, and cannot be hostile from round "
                    f"{hostile.from_round} on"
                )
        return self

    def named_labs(self) -> list[tuple[str, str]]:
        """Return each key that names labs, with each name."""
        tables: dict[str, Mapping[str, object]] = {
            key: value
            for key in Scenario.model_fields
            if isinstance(value := getattr(self, key), Mapping)
        }
        return [
            (key, lab)
            for key, table in tables.items()
            for lab in table
            if not (lab == EVERY and key in FOR_EVERY)
        ]

    def settings(self) -> dict[str, Any]:
        """Return what is set, as it would be written in the file."""
        return self.model_dump(mode="json", exclude_defaults=True)


def of_lab(table: Mapping[str, float], lab: str) -> float:
    """Return a lab's number, or that of every lab, or zero.

    Examples
    --------
    >>> of_lab({"every": 0.2, "celle": 0.9}, "celle"), of_lab({"every": 0.2}, "aachen")
    (0.9, 0.2)
    """
    return table.get(lab, table.get(EVERY, 0.0))


def load_scenario(path: Path, assignments: Sequence[str] = ()) -> Scenario | None:
    """Read the table of a federation file, or of the folder that holds one.

    Parameters
    ----------
    path : Path
    assignments : sequence of str
        Such as ``"simulation.dropout=0.2"``; those of other tables are of no account.

    Returns
    -------
    Scenario or None
        None where there is no such table.

    Raises
    ------
    ConfigurationError
        Names each wrong key, the rule and the value found.
    """
    data = read_simulation(path, assignments)
    if data is None:
        return None
    source = f"{path / FILE_NAME if path.is_dir() else path}: [simulation]"
    if not isinstance(data, Mapping):
        raise ConfigurationError(f"{source} is a table, found {data!r}")
    return parse(Scenario, data, source)
