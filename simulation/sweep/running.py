"""A sweep from its folder to what came of it, and what is seen of it meanwhile."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID

from client.dataset import Dataset
from client.feature_store import FeatureStore, default_folder
from common.federation import Federation
from common.progress import steps
from simulation.consortium import Consortium, read_datasets
from simulation.engine import choose_engine
from simulation.scenarios.scenario import Scenario
from simulation.scenarios.staging import open_staged, staged
from simulation.sweep.nested import Swept, num_steps, run_sweep
from simulation.sweep.outcome import Setting
from simulation.sweep.preparing import Preparer, data_digest
from simulation.sweep.settings import Sweep
from simulation.sweep.space import Space
from simulation.sweep.storage import Storage

FEATURES = ".features-"


@dataclass(frozen=True, kw_only=True)
class Order:
    """A sweep that is asked for.

    Attributes
    ----------
    folder : Path
        Of the labs, or one pooled data set.
    scenario : Scenario or None
        What befalls the labs in every trial.
    sweep : Sweep
    space : Space
    out : Path
        The run's folder, which is there.
    """

    folder: Path
    scenario: Scenario | None
    sweep: Sweep
    space: Space
    out: Path


def run(order: Order, console: Console) -> Swept:
    """Run a sweep, or go on with it.

    Parameters
    ----------
    order : Order
    console : Console
        Bars are drawn on it, if it is a terminal.
    """
    logging.getLogger("flwr").setLevel(logging.WARNING)
    for left_by_a_kill in order.out.glob(f"{FEATURES}*"):
        shutil.rmtree(left_by_a_kill)
    datasets = read_datasets(order.folder, order.space.federation)
    storage = Storage(order.out, begun_with(order, datasets))
    try:
        with (
            steps(console) as progress,
            tempfile.TemporaryDirectory(prefix=FEATURES, dir=order.out) as work,
        ):
            opener = _opener(order, progress)
            preparer = Preparer(opener, Path(work), order.space.federation, order.scenario)
            chosen = choose_engine("auto", len(preparer.own.labs))
            progress.console.print(chosen.reason, markup=False, highlight=False)
            setting = Setting(
                sweep=order.sweep,
                space=order.space,
                preparer=preparer,
                storage=storage,
                engine=chosen.name,
                scenario=order.scenario,
            )
            trials, tests = num_steps(order.sweep, order.space)
            what = f"{trials} trials, {tests} {'test' if tests == 1 else 'tests'}"
            bar = progress.add_task(what, total=trials + tests)
            return run_sweep(setting, on_trial=lambda: progress.advance(bar))
    finally:
        storage.close()


def begun_with(order: Order, datasets: list[Dataset]) -> dict[str, str]:
    """Return what a sweep depends on, as hashes and texts by name: with another, it is another."""
    scenario = order.scenario
    return {
        "sweep file": order.sweep.digest(),
        "federation file": order.space.federation.fingerprint(),
        "table [simulation]": scenario.model_dump_json() if scenario else "none",
        "data": data_digest(datasets),
    }


def _opener(order: Order, progress: Progress) -> Callable[[Federation], Consortium]:
    store = FeatureStore(default_folder())

    def opened(federation: Federation) -> Consortium:
        bars: list[TaskID] = []

        def counter(what: str, total: int) -> Callable[[], None]:
            bar = progress.add_task(what, total=total)
            bars.append(bar)
            return lambda: progress.advance(bar)

        datasets = staged(read_datasets(order.folder, federation), federation, order.scenario)
        made = open_staged(datasets, federation, store, order.scenario, counter)
        for bar in bars:
            progress.remove_task(bar)
        return made

    return opened
