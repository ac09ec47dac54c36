"""``crossply sweep``; heavy imports wait until the command runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.errors import ConfigurationError
from simulation.cli import claim_folder, new_run_folder

if TYPE_CHECKING:
    from common.federation import Federation
    from simulation.scenarios.scenario import Scenario
    from simulation.sweep.nested import Swept
    from simulation.sweep.settings import Sweep
    from simulation.sweep.space import Space

STOPPED = 130

FEATURES = ".features-"


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
    from simulation.report import RESULT as SIMULATED
    from simulation.scenarios.possible import load_possible
    from simulation.sweep.checking import space_of
    from simulation.sweep.report import RESULT, print_sweep, write_sweep
    from simulation.sweep.settings import read_sweep

    federation = load_federation(folder)
    scenario = load_possible(folder, federation)
    asked = read_sweep(file)
    space = space_of(asked, federation, folder, str(file))
    out = out or new_run_folder(Path("runs"), f"{federation.name}-sweep")
    claim_folder(out, (SIMULATED,))
    messages = Console(stderr=True)
    try:
        with StopSignals(), held_alone(out / ".lock", f"another sweep is at work in {out}"):
            swept = _run(Searched(folder, scenario, asked, space), out)
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


@dataclass(frozen=True)
class Searched:
    """What is searched: labs in a folder, what befalls them, and over which settings."""

    folder: Path
    scenario: Scenario | None
    asked: Sweep
    space: Space


def _run(searched: Searched, out: Path) -> Swept:
    import logging
    import shutil
    import tempfile

    from rich.console import Console

    from common.progress import steps
    from simulation.consortium import read_datasets
    from simulation.engine import choose_engine
    from simulation.sweep.nested import num_steps, run_sweep
    from simulation.sweep.outcome import Setting
    from simulation.sweep.preparing import Preparer, data_digest
    from simulation.sweep.storage import Storage

    asked, space, scenario = searched.asked, searched.space, searched.scenario
    logging.getLogger("flwr").setLevel(logging.WARNING)
    for left_by_a_kill in out.glob(f"{FEATURES}*"):
        shutil.rmtree(left_by_a_kill)
    datasets = read_datasets(searched.folder, space.federation)
    begun_with = {
        "sweep file": asked.digest(),
        "federation file": space.federation.fingerprint(),
        "table [simulation]": scenario.model_dump_json() if scenario else "none",
        "data": data_digest(datasets),
    }
    storage = Storage(out, begun_with)
    try:
        with (
            steps(Console(stderr=True)) as progress,
            tempfile.TemporaryDirectory(prefix=FEATURES, dir=out) as work,
        ):
            opener = _opener(searched, progress)
            preparer = Preparer(opener, Path(work), space.federation, scenario)
            chosen = choose_engine("auto", len(preparer.own.labs))
            progress.console.print(chosen.reason, markup=False, highlight=False)
            setting = Setting(
                sweep=asked,
                space=space,
                preparer=preparer,
                storage=storage,
                engine=chosen.name,
                scenario=scenario,
            )
            bar = progress.add_task("trials", total=num_steps(asked, space))
            return run_sweep(setting, on_trial=lambda: progress.advance(bar))
    finally:
        storage.close()


def _opener(searched: Searched, progress: Any) -> Callable[[Federation], Any]:
    from client.feature_store import FeatureStore, default_folder
    from simulation.consortium import read_datasets
    from simulation.scenarios.staging import open_staged, staged

    store = FeatureStore(default_folder())

    def opened(federation: Federation) -> Any:
        bars: list[Any] = []

        def counter(what: str, total: int) -> Callable[[], None]:
            bar = progress.add_task(what, total=total)
            bars.append(bar)
            return lambda: progress.advance(bar)

        datasets = staged(read_datasets(searched.folder, federation), federation, searched.scenario)
        made = open_staged(datasets, federation, store, searched.scenario, counter)
        for bar in bars:
            progress.remove_task(bar)
        return made

    return opened
