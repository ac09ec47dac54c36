"""What the answers after training cost, beside training itself, with features kept.

python -m benchmarks.after_training [--data DIR] [--repeat N]

Medians over repeats on each set: all modes of a simulation, what is gathered beside them (versions
of the head, cross-lab errors, ridge without each lab), and what is made of it at the end
(intervals, verdicts, contributions, result.json, the report). Then the demo's six labs and a
coordinator as processes over the link, all on this machine: when each step was done, from the start
of the labs, whose coordinator waits. The last line is exact Shapley values of eight labs at 64
dimensions.
"""

from __future__ import annotations

import argparse
import logging
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.accuracy import DEMO_FOLDS, SETS, SHARED
from benchmarks.loopback import Consortium as Site
from benchmarks.loopback import until, warm_context
from client.feature_store import FeatureStore, default_folder
from common.federation import FILE_NAME, load_federation
from common.garbage import search_less
from common.gram import GramSums
from common.round_log import FILE_NAME as ROUNDS
from common.sealed import SUMS
from common.threads import one_thread
from server.contribution import contributions
from simulation.consortium import Consortium, open_consortium, read_datasets
from simulation.demo import write_demo
from simulation.experiment import run_experiment
from simulation.report import result_record, write_run

DEPLOYED = (
    "first round",
    "last round",
    "model at every lab",
    "coordinator's report",
    "labs' reports",
)
"""Steps of a run over the link."""


def consortia(data: Path, scratch: Path) -> Iterator[tuple[str, Consortium, int | None]]:
    """Open the demo, and each real set that is there."""
    write_demo(scratch / "demo")
    folders = [("demo", scratch / "demo", DEMO_FOLDS)]
    folders += [(name, data / name, folds) for name, folds in SETS.items()]  # type: ignore[misc]
    for name, folder, folds in folders:
        if folder.is_dir():
            federation = load_federation(folder)
            datasets = read_datasets(folder, federation)
            store = FeatureStore(default_folder())
            yield name, open_consortium(datasets, federation, store), folds


def measure(consortium: Consortium, folds: int | None, scratch: Path) -> tuple[float, float, float]:
    """Return seconds of all modes, of what is gathered beside them, and of the end."""
    outcome = run_experiment(consortium, folds=folds)
    started = time.perf_counter()
    write_run(outcome, result_record(outcome, {}), scratch)
    end = time.perf_counter() - started
    beside = outcome.seconds["evidence"]
    return sum(outcome.seconds.values()) - beside, beside, end


def measure_deployed(demo: Path, scratch: Path) -> tuple[float, ...]:
    """Return when each of `DEPLOYED` was done, in seconds from the labs' start."""
    names = sorted(path.name for path in demo.iterdir() if path.is_dir())
    # a name that can be enrolled has no underscores
    folders = {name.replace("_", "-"): demo / name for name in names}
    site = Site(
        scratch,
        lambda name: SimpleNamespace(path=folders[name.removeprefix("data-")]),
        warm_context(),
    )
    run = site.server / "run"
    scratch.mkdir()
    try:
        here = ("--address", site.address, "--state", site.server)
        site.do("server", "init", demo / FILE_NAME, *here)
        enrolling = site.coordinator("--wait", "5 min")
        for name in folders:
            site.join(name)
        enrolling.send(signal.SIGTERM)
        enrolling.exit_code()
        coordinator = site.coordinator("--wait", "5 min")
        started = time.time()
        labs = [site.lab(name) for name in folders]
        until((run / ROUNDS).exists, "a first round", timeout=300)
        first = time.time()
        assert coordinator.exit_code(timeout=300) == 0, coordinator.text()
        assert all(lab.exit_code(timeout=300) == 0 for lab in labs)
        written = [
            (run / ROUNDS).stat().st_mtime,
            max((site.state(name) / "model" / SUMS).stat().st_mtime for name in folders),
            (run / "report.html").stat().st_mtime,
            max((site.state(name) / "report.html").stat().st_mtime for name in folders),
        ]
    finally:
        site.close()
    return tuple(moment - started for moment in (first, *written))


def shapley_seconds(num_labs: int = 8, dimensions: int = 64) -> float:
    """Return seconds of exact Shapley values over labs that are drawn at random."""
    generator = np.random.default_rng(0)
    of_labs = {}
    for lab in range(num_labs):
        z = generator.normal(size=(100, dimensions))
        of_labs[str(lab)] = GramSums.of(z, z[:, :1] + generator.normal(size=(100, 1)))
    with one_thread():
        started = time.perf_counter()
        contributions(of_labs, ("target",))
        return time.perf_counter() - started


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED, help="folder of the real sets")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.WARNING)
    # as the command does
    search_less()
    shown = Table(title="Seconds, medians", title_justify="left", box=SIMPLE_HEAD)
    shown.add_column("set")
    for heading in ("all modes", "beside them", "at the end", "added"):
        shown.add_column(heading, justify="right")
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for number, (label, consortium, folds) in enumerate(consortia(arguments.data, scratch)):
            runs = [
                measure(consortium, folds, scratch / f"{number}-{repeat}")
                for repeat in range(arguments.repeat)
            ]
            modes, beside, end = (statistics.median(part) for part in zip(*runs, strict=True))
            cells = (f"{modes:.2f}", f"{beside:.2f}", f"{end:.2f}", f"{(beside + end) / modes:.0%}")
            shown.add_row(label, *cells)
        steps = [
            measure_deployed(scratch / "demo", scratch / f"deployed-{repeat}")
            for repeat in range(arguments.repeat)
        ]
    console = Console()
    console.print(shown)
    link = Table(title="The demo over the link, seconds", title_justify="left", box=SIMPLE_HEAD)
    for heading in DEPLOYED:
        link.add_column(heading, justify="right")
    link.add_row(*(f"{statistics.median(moments):.1f}" for moments in zip(*steps, strict=True)))
    console.print(link)
    shapley = statistics.median(shapley_seconds() for _ in range(arguments.repeat))
    console.print(f"exact Shapley values of 8 labs at 64 dimensions: {shapley:.2f} s")


if __name__ == "__main__":
    main()
