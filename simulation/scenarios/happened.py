"""What an outcome tells of its scenario: the part of ``result.json``, the rows of the report."""

from __future__ import annotations

from typing import Any

from common.report.content import Happening
from simulation.experiment import Outcome
from simulation.scenarios.events import told_in_rows
from simulation.scenarios.virtual_labs import seed_of

MOST_ROWS = 200
"""Of what happened in a report; all of it stands in ``result.json``."""


def scenario_record(outcome: Outcome) -> dict[str, Any]:
    """Return what was to befall the labs, and what did; empty where nothing was."""
    if outcome.scenario is None:
        return {}
    scenario = {
        "settings": outcome.scenario.settings(),
        "seed": seed_of(outcome.scenario, outcome.consortium.federation),
        "specimens": {lab.lab: len(lab) for lab in outcome.consortium.labs},
    }
    return {"scenario": scenario, **outcome.diary.record()}


def happenings(outcome: Outcome) -> tuple[Happening, ...]:
    """Return what happened to whom, one row for all rounds in which it did."""
    return tuple(
        Happening(lab=lab, kind=kind, rounds=rounds, words=words)
        for lab, kind, rounds, words in told_in_rows(outcome.diary.events, MOST_ROWS)
    )
