"""``crossply simulate`` and ``crossply demo``; heavy imports wait until a command runs."""

from __future__ import annotations

import re
import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulation.experiment import Outcome
    from simulation.scenario import Scenario

MODE_NAMES = ("federated", "centralized", "local", "ridge", "random_forest")

ENGINE_NAMES = ("auto", "inprocess", "batched")


def simulate(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of lab folders, or one pooled data set.")
    ],
    mode: Annotated[
        list[str] | None,
        typer.Option("--mode", help=f"Run only this: {', '.join(MODE_NAMES)}. Repeatable."),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            "--folds", min=2, help="K-fold inside every lab, instead of one held-out fifth."
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option("--rounds", min=1, help="Rounds, instead of the file's.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a key, as training.learning_rate=3e-4."
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="ENGINE",
            help="Train labs one after the other (inprocess), together (batched), or as their "
            "number suggests (auto).",
        ),
    ] = "auto",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="RUN", help="Folder to write the run to.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print result.json instead of tables.")
    ] = False,
) -> None:
    """Train across virtual labs in this process, and compare with pooling and with staying alone.

    DIR holds a federation.toml and either one folder with a lab.toml for each lab, or one pooled
    data set whose lab.toml names the labs' column under [partition]. A table [simulation] in
    federation.toml cuts other virtual labs, and says what befalls them.
    """
    changes = list(assignments or [])
    if rounds is not None:
        changes.append(f"training.rounds={rounds}")
    run_and_report(
        folder,
        modes=_modes(mode),
        folds=folds,
        assignments=changes,
        out=out,
        as_json=as_json,
        engine=_engine(engine),
    )


def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder to make the demo in.")
    ] = Path("runs/demo"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print result.json instead of tables.")
    ] = False,
) -> None:
    """Make six virtual labs that photograph and break composites, and see if joining pays."""
    from rich.console import Console

    from common.progress import steps
    from simulation.demo import num_specimens, write_demo

    labs = folder / "labs"
    console = Console(stderr=True)
    with steps(console) as progress:
        bar = progress.add_task("drawing and solving specimens", total=num_specimens())
        write_demo(labs, on_specimen=lambda: progress.advance(bar))
    run_and_report(
        labs,
        modes=MODE_NAMES,
        folds=5,
        assignments=[],
        out=_new_run(folder, "run"),
        as_json=as_json,
    )


def run_and_report(
    folder: Path,
    *,
    modes: tuple[str, ...],
    folds: int | None,
    assignments: list[str],
    out: Path | None,
    as_json: bool,
    engine: str = "auto",
) -> None:
    """Run a simulation, write its folder, and print what came of it."""
    import json

    from rich.console import Console

    from common.federation import load_federation
    from simulation.possible import load_possible
    from simulation.report import RESULT, print_summary, result_record, write_run

    federation = load_federation(folder, assignments)
    scenario = load_possible(folder, federation, assignments)
    out = out or _new_run(Path("runs"), federation.name)
    _claim(out, RESULT)
    outcome, seconds = _run(folder, federation, modes, folds, engine, scenario)
    record = result_record(outcome, seconds)
    write_run(outcome, record, out)
    console = Console()
    if as_json:
        print(json.dumps(record, indent=2))
    else:
        print_summary(outcome, console)
    message = f"Written to {out}: report.html, result.json, predictions.csv, parity.png"
    Console(stderr=True).print(message, markup=False, highlight=False)


def _run(
    folder: Path,
    federation: Any,
    modes: tuple[str, ...],
    folds: int | None,
    engine: str,
    scenario: Scenario | None,
) -> tuple[Outcome, dict[str, float]]:
    import logging
    import time

    from rich.console import Console

    from client.feature_store import FeatureStore, default_folder
    from common.progress import steps
    from simulation.consortium import read_datasets
    from simulation.engine import choose_engine
    from simulation.experiment import run_experiment
    from simulation.staging import open_staged, staged

    logging.getLogger("flwr").setLevel(logging.WARNING)
    started = time.perf_counter()
    datasets = staged(read_datasets(folder, federation), federation, scenario)
    with steps(Console(stderr=True)) as progress:

        def count(what: str, total: int) -> Callable[[], None]:
            bar = progress.add_task(what, total=total)
            return lambda: progress.advance(bar)

        store = FeatureStore(default_folder())
        consortium = open_staged(datasets, federation, store, scenario, count)
        seconds = {"features": time.perf_counter() - started}
        bars: dict[str, Any] = {}

        def on_step(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what.replace("_", " "), total=total)
            progress.update(bars[what], completed=done, total=total)

        chosen = choose_engine(engine, len(consortium.labs))
        if "federated" in modes:
            progress.console.print(chosen.reason, markup=False, highlight=False)
        outcome = run_experiment(
            consortium,
            modes=modes,
            folds=folds,
            on_step=on_step,
            engine=chosen.name,
            scenario=scenario,
        )
    return outcome, seconds


def _modes(chosen: list[str] | None) -> tuple[str, ...]:
    for name in chosen or ():
        if name not in MODE_NAMES:
            raise ConfigurationError(
                f"--mode {name}: there is no such mode; choose among {', '.join(MODE_NAMES)}"
            )
    return tuple(name for name in MODE_NAMES if not chosen or name in chosen)


def _engine(chosen: str) -> str:
    if chosen not in ENGINE_NAMES:
        raise ConfigurationError(
            f"--engine {chosen}: there is no such engine; choose among {', '.join(ENGINE_NAMES)}"
        )
    return chosen


def _claim(out: Path, result: str) -> None:
    """Make the run's folder before any work, so that a bad name costs no training."""
    if (out / result).exists():
        raise ConfigurationError(f"{out} holds a run already; name another folder with --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            return
    except OSError as error:
        raise ConfigurationError(f"{out} cannot be written to: {error.strerror}") from error


def _new_run(parent: Path, name: str) -> Path:
    """Name a folder that is not there yet after the present time."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "run"
    stem = f"{slug}-{datetime.now():%Y%m%d-%H%M%S}"
    candidates = [stem, *(f"{stem}-{number}" for number in range(2, 100))]
    return next(parent / name for name in candidates if not (parent / name).exists())
