"""A simulation from its folder to its outcome, and who is told how it goes."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from client.feature_store import FeatureStore, default_folder
from common.federation import Federation
from common.round_log import FILE_NAME, RoundLog, utc_now
from server.state import RoundRecord
from simulation.consortium import Consortium, read_datasets
from simulation.engine import choose_engine
from simulation.experiment import Outcome, run_experiment
from simulation.live_view import LiveView
from simulation.scenarios.scenario import Scenario
from simulation.scenarios.staging import open_staged, staged
from simulation.tracking.trackers import Error, Tracker, tracked


@dataclass(frozen=True, kw_only=True)
class Order:
    """A simulation that is asked for.

    Attributes
    ----------
    folder : Path
        Of the labs, or one pooled data set.
    federation : Federation
    scenario : Scenario or None
    modes : tuple of str
    folds : int or None
    engine : str
        A name of `simulation.cli.ENGINE_NAMES`.
    trackers : tuple of str
        Keys of `simulation.tracking.trackers.TRACKERS`.
    out : Path
        The run's folder, which is there.
    """

    folder: Path
    federation: Federation
    scenario: Scenario | None
    modes: tuple[str, ...]
    folds: int | None
    engine: str
    trackers: tuple[str, ...]
    out: Path


def run(order: Order, console: Console) -> tuple[Outcome, dict[str, float]]:
    """Run a simulation, and return its outcome and the seconds that features took.

    Parameters
    ----------
    order : Order
    console : Console
        Drawn on while it runs, if it is a terminal.
    """
    logging.getLogger("flwr").setLevel(logging.WARNING)
    started = time.perf_counter()
    datasets = staged(
        read_datasets(order.folder, order.federation), order.federation, order.scenario
    )
    with (
        LiveView(console) as view,
        tracked(order.trackers, order.out, order.federation, view.say) as trackers,
    ):
        store = FeatureStore(default_folder())
        consortium = open_staged(datasets, order.federation, store, order.scenario, view.count)
        seconds = {"features": time.perf_counter() - started}
        outcome = _experiment(order, consortium, view, trackers)
        for tracker in trackers:
            tracker.finished(final_errors(outcome))
    return outcome, seconds


def _experiment(
    order: Order, consortium: Consortium, view: LiveView, trackers: Sequence[Tracker]
) -> Outcome:
    chosen = choose_engine(order.engine, len(consortium.labs))
    if "federated" in order.modes:
        view.say(chosen.reason)
    log = RoundLog(order.out / FILE_NAME, synced_every=1.0)
    log.begin()

    def on_round(fold: int, record: RoundRecord, seconds: float) -> None:
        line = record.line(fold=fold, seconds=round(seconds, 6), time=utc_now())
        log.append(line)
        view.round(line)
        for tracker in trackers:
            tracker.round(line)

    return run_experiment(
        consortium,
        modes=order.modes,
        folds=order.folds,
        on_step=view.step,
        on_round=on_round,
        engine=chosen.name,
        scenario=order.scenario,
    )


def final_errors(outcome: Outcome) -> list[Error]:
    """Return the errors of each mode and target over all labs' held-out specimens."""
    return [
        Error(
            mode=mode,
            target=target,
            unit=outcome.consortium.federation.targets[target].unit,
            rmse=found["rmse"],
            mae=found["mae"],
            r2=found["r2"],
        )
        for mode in outcome.predicted
        for target, found in outcome.metrics(mode).items()
    ]
