"""``crossply simulate`` and ``crossply demo``; heavy imports wait until a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.errors import ConfigurationError

MODE_NAMES = ("federated", "centralized", "local", "ridge", "random_forest")

ENGINE_NAMES = ("auto", "inprocess", "batched", "flower-ray")


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
            help="Train labs one after the other (inprocess), together (batched), on Flower's Ray "
            "engine (flower-ray), or as their number suggests (auto).",
        ),
    ] = "auto",
    track: Annotated[
        list[str] | None,
        typer.Option(
            "--track",
            metavar="TRACKER",
            help="Show the run in tensorboard or mlflow too. Repeatable.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="RUN", help="Folder to write the run to.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print result.json instead of tables.")
    ] = False,
) -> None:
    r"""Train across virtual labs in this process, and compare with pooling and with staying alone.

    DIR holds a federation.toml and either one folder with a lab.toml for each lab, or one pooled
    data set whose lab.toml names the labs' column under \[partition]. A table \[simulation] in
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
        track=tuple(track or ()),
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
        out=None,
        new=(folder, "run"),
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
    track: tuple[str, ...] = (),
    new: tuple[Path, str] | None = None,
) -> None:
    """Run a simulation, write its folder, and print what came of it.

    Without `out`, a `new` folder is made in the first of the two, and named after the second.
    """
    import json

    from rich.console import Console

    from common.bundle import FOLDER_NAME as MODEL
    from common.federation import load_federation
    from simulation.consortium import require_labs
    from simulation.engine import require_engine
    from simulation.report import result_record, write_run
    from simulation.run_folder import run_folder
    from simulation.running import Order, run
    from simulation.scenarios.possible import load_possible
    from simulation.summary import print_summary
    from simulation.tracking.trackers import require_trackers

    trackers = require_trackers(track)
    require_engine(engine)
    require_labs(folder)
    federation = load_federation(folder, assignments)
    scenario = load_possible(folder, federation, assignments)
    with run_folder(out, *(new or (Path("runs"), federation.name))) as claimed:
        order = Order(
            folder=folder,
            federation=federation,
            scenario=scenario,
            modes=modes,
            folds=folds,
            engine=engine,
            trackers=trackers,
            out=claimed,
        )
        outcome, seconds = run(order, Console(stderr=True))
        record = result_record(outcome, seconds)
        write_run(outcome, record, claimed)
    console = Console()
    if as_json:
        print(json.dumps(record, indent=2))
    else:
        print_summary(outcome, console)
    message = (
        f"Written to {claimed}: federation.toml, report.html, result.json, rounds.jsonl, "
        "predictions.csv, parity.png" + (", model/" if (claimed / MODEL).exists() else "")
    )
    Console(stderr=True).print(message, markup=False, highlight=False)


def _modes(chosen: list[str] | None) -> tuple[str, ...]:
    # as tables and reports spell it
    asked = {"centralized" if name == "centralised" else name for name in chosen or ()}
    for name in sorted(asked):
        if name not in MODE_NAMES:
            raise ConfigurationError(
                f"--mode {name}: there is no such mode; choose among {', '.join(MODE_NAMES)}"
            )
    return tuple(name for name in MODE_NAMES if not asked or name in asked)


def _engine(chosen: str) -> str:
    if chosen not in ENGINE_NAMES:
        raise ConfigurationError(
            f"--engine {chosen}: there is no such engine; choose among {', '.join(ENGINE_NAMES)}"
        )
    return chosen
