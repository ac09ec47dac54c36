"""A federated run to which a scenario happens: the grid, the attempts, and what is written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from flwr.serverapp import Grid

from client.lab import Lab
from server.rounds import RunOptions, run_federation
from server.state import RunResult
from simulation.scenarios.events import Diary, Event
from simulation.scenarios.scenario import Scenario
from simulation.scenarios.scenario_grid import ScenarioGrid
from simulation.scenarios.script import Script


@dataclass(frozen=True, kw_only=True)
class Scripted:
    """What is to happen in one fold, and where it is written down."""

    scenario: Scenario
    diary: Diary
    fold: int


def run_scripted(
    grid: Grid, labs: Sequence[Lab], scripted: Scripted | None, options: RunOptions
) -> RunResult:
    """Run a federation on a grid, as the script says if there is one.

    A round below the quorum is tried again in virtual time, where chance decides who is there.

    Raises
    ------
    QuorumError
        If a phase stays below the quorum; names those that are missing.
    """
    if scripted is None:
        return run_federation(grid, labs[0].federation, options)
    script = Script(
        scenario=scripted.scenario,
        federation=labs[0].federation,
        num_training={lab.name: len(lab.training) for lab in labs},
        fold=scripted.fold,
    )
    around = ScenarioGrid(grid, script, scripted.diary)
    result = run_federation(around, script.federation, replace(options, again=around.again))
    scripted.diary.events.extend(_put_out(result, scripted.fold))
    return result


def _put_out(result: RunResult, fold: int) -> list[Event]:
    """Return an event for each lab that the coordinator has put out, in the round if in one."""
    rounds = {lab: record.server_round for record in result.history for lab in record.quarantined}
    return [
        Event(kind="put out", words=why, lab=lab, fold=fold, server_round=rounds.get(lab))
        for lab, why in result.excluded.items()
    ]
