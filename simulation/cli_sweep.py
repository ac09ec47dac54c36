"""``crossply sweep``; heavy imports wait until the command runs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from common.errors import ConfigurationError
from simulation.run_folder import claim_folder, new_run_folder

STOPPED = 130


def sweep(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of lab folders, or one pooled data set.")
    ],
    file: Annotated[Path, typer.Argument(metavar="SWEEP.toml", help="What is searched, and how.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="RUN", help="Folder to write to, or to go on in."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print sweep.json instead of tables.")
    ] = False,
) -> None:
    """Search for settings on virtual labs; what judges them is never seen by the choice.

    DIR is a folder as simulate takes it. The same command with the same --out goes on with a sweep
    that was stopped. RUN/federation.toml holds the chosen settings.
    """
    require_optuna()
    from rich.console import Console

    from common.federation import load_federation
    from common.files import held_alone
    from common.stopping import Stopped, StopSignals
    from simulation.consortium import require_labs
    from simulation.report import RESULT as SIMULATED
    from simulation.scenarios.possible import load_possible
    from simulation.sweep.checking import space_of
    from simulation.sweep.report import RESULT, print_sweep, write_sweep
    from simulation.sweep.running import Order, run
    from simulation.sweep.settings import read_sweep

    require_labs(folder)
    federation = load_federation(folder)
    scenario = load_possible(folder, federation)
    asked = read_sweep(file)
    space = space_of(asked, federation, folder, str(file))
    out = out or new_run_folder(Path("runs"), f"{federation.name}-sweep")
    claim_folder(out, (SIMULATED,))
    messages = Console(stderr=True)
    try:
        with StopSignals(), held_alone(out / ".lock", f"another sweep is at work in {out}"):
            order = Order(folder=folder, scenario=scenario, sweep=asked, space=space, out=out)
            swept = run(order, messages)
            write_sweep(swept, out)
    except Stopped:
        command = shlex.join(["crossply", "sweep", str(folder), str(file), "--out", str(out)])
        typer.echo(f"Stopped; finished trials are kept. Go on with: {command}", err=True)
        raise typer.Exit(STOPPED) from None
    if as_json:
        typer.echo((out / RESULT).read_text(encoding="utf-8"))
    else:
        print_sweep(swept, Console())
    message = f"Written to {out}: federation.toml, report.html, trials.csv, sweep.json, study.db"
    messages.print(message, markup=False, highlight=False)


def require_optuna() -> None:
    """Say what to install where optuna is missing.

    Raises
    ------
    ConfigurationError
    """
    from importlib.util import find_spec

    if find_spec("optuna") is None:
        raise ConfigurationError("crossply sweep needs optuna: pip install 'crossply[sweep]'")
