"""Whether a scenario can be: checked against the agreement, and against the labs by name.

All of it before a feature is made, and what hangs on no data before any is read.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from common.errors import ConfigurationError, UnitError
from common.federation import Federation
from common.units import convert, same_unit
from server.roster import quorum_of
from simulation.scenarios.partition import names_of_labs
from simulation.scenarios.scenario import Scenario, UnitMistake, load_scenario, of_lab

IN_ROUNDS = ("dropout", "away", "leave", "slow", "speed_spread", "seconds_per_specimen")
"""What befalls labs in rounds of training."""

MOST_NAMED = 8


def load_possible(
    path: Path, federation: Federation, assignments: Sequence[str] = ()
) -> Scenario | None:
    """Read the scenario of a federation file, and check all of it that hangs on no data.

    Parameters
    ----------
    path : Path
        The file, or the folder that holds it.
    federation : Federation
        As it is read from the file.
    assignments : sequence of str
        Such as ``"simulation.dropout=0.2"``.

    Returns
    -------
    Scenario or None
        None where the file has no such table.

    Raises
    ------
    ConfigurationError
        If the table is wrong, or the scenario cannot be.
    """
    scenario = load_scenario(path, assignments)
    if scenario is not None:
        require_possible(scenario, federation)
        if scenario.labs is not None:
            require_labs(scenario, federation, names_of_labs(scenario.labs))
    return scenario


def require_possible(scenario: Scenario, federation: Federation) -> None:
    """Check a scenario against the agreement that it is about.

    Raises
    ------
    ConfigurationError
        If it names a target or a round that is not there, a unit that does not convert, or rounds
        where the strategy has none.
    """
    if scenario.target is not None:
        _require_target(scenario.target, "target", federation)
    for lab, mistake in scenario.unit_mistake.items():
        _require_unit(f"unit_mistake.{lab}", mistake, federation)
    for key, number in _rounds_named(scenario):
        if number > federation.training.rounds:
            raise _impossible(
                f"{key} names round {number}, and training.rounds is {federation.training.rounds}"
            )
    if federation.training.strategy == "ridge":
        scripted = [key for key in IN_ROUNDS if getattr(scenario, key)]
        scripted += [
            f"hostile.{lab}"
            for lab, hostile in scenario.hostile.items()
            if hostile.attack != "label_scale"
        ]
        if scripted:
            raise _impossible(
                f'{scripted[0]} is about rounds of training, and strategy = "ridge" has none; '
                "choose another strategy"
            )


def require_labs(scenario: Scenario, federation: Federation, names: Sequence[str]) -> None:
    """Check that the labs that a scenario names are there, and that a quorum can be.

    Parameters
    ----------
    scenario : Scenario
    federation : Federation
    names : sequence of str
        Of all labs.

    Raises
    ------
    ConfigurationError
        Names the key and the lab, or the round that cannot count.
    """
    known = set(names)
    for key, lab in scenario.named_labs():
        if lab not in known:
            close = difflib.get_close_matches(lab, names, n=1, cutoff=0.0)
            raise _impossible(
                f"{key} names the lab {lab!r}; the closest of the labs is {close[0]!r}"
            )
    share = federation.training.quorum
    needed = quorum_of(len(names), share)
    for number in _rounds_to_look_at(scenario):
        gone = [name for name in names if _is_surely_away(scenario, name, number)]
        if len(names) - len(gone) < needed:
            shown = ", ".join(gone[:MOST_NAMED]) + (", ..." if len(gone) > MOST_NAMED else "")
            raise _impossible(
                f"round {number} lacks {len(gone)} of {len(names)} labs ({shown}), and "
                f"training.quorum = {share:g} needs {needed}"
            )


def _require_target(target: str, key: str, federation: Federation) -> None:
    if target not in federation.targets:
        close = difflib.get_close_matches(target, federation.targets, n=1, cutoff=0.0)
        raise _impossible(
            f"{key} names the target {target!r}; the closest of the federation's is {close[0]!r}"
        )


def _require_unit(key: str, mistake: UnitMistake, federation: Federation) -> None:
    _require_target(mistake.target, f"{key}.target", federation)
    unit = federation.targets[mistake.target].unit
    try:
        convert(np.ones(1), unit, mistake.unit)
    except UnitError as error:
        raise _impossible(f"{key}: {error}") from error
    if same_unit(unit, mistake.unit):
        raise _impossible(f"{key}.unit is {mistake.unit!r}, the federation's own: no mistake")


def _rounds_named(scenario: Scenario) -> Iterator[tuple[str, int]]:
    for lab, numbers in scenario.away.items():
        yield from ((f"away.{lab}", number) for number in numbers)
    for lab, number in scenario.leave.items():
        yield f"leave.{lab}", number
    for lab, hostile in scenario.hostile.items():
        yield f"hostile.{lab}.from_round", hostile.from_round


def _rounds_to_look_at(scenario: Scenario) -> list[int]:
    """Return the rounds in which something changes, and the first."""
    return sorted({1, *(number for _, number in _rounds_named(scenario))})


def _is_surely_away(scenario: Scenario, lab: str, number: int) -> bool:
    has_left = lab in scenario.leave and number >= scenario.leave[lab]
    return has_left or number in scenario.away.get(lab, ()) or of_lab(scenario.dropout, lab) == 1


def _impossible(why: str) -> ConfigurationError:
    return ConfigurationError(f"[simulation] {why}")
