"""Seconds from `crossply lab join` to the first round, with every process started cold.

python -m benchmarks.joining [--repeat N]

A coordinator waits on loopback; a lab of 24 specimens joins and starts, as one would type it.
Imports, the lab's checks and its features are included.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import tomli_w
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.loopback import free_port, until
from benchmarks.small_labs import maker_of_small_labs

BIN = Path(sys.executable).parent

STEPS = ("lab join", "lab start, until ready", "until round 1 counted", "all")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args(arguments)
    runs = []
    for _ in range(options.repeat):
        with tempfile.TemporaryDirectory(prefix="crossply-") as name:
            runs.append(_join_once(Path(name)))
    table = Table(title="from `crossply lab join` to the first round", box=SIMPLE_HEAD)
    table.add_column("step")
    for column in ("median s", "min s", "max s"):
        table.add_column(column, justify="right")
    for step, times in zip(STEPS, zip(*runs, strict=True), strict=True):
        shown = (statistics.median(times), min(times), max(times))
        table.add_row(step, *(f"{value:.2f}" for value in shown))
    Console(width=100).print(table)


def _join_once(folder: Path) -> tuple[float, ...]:
    """Return the seconds of each step, and of all."""
    environment = os.environ | {"CROSSPLY_CACHE": str(folder / "features")}
    data = maker_of_small_labs(folder)("data")
    agreement, server, state = folder / "federation.toml", folder / "server", folder / "lab"
    agreement.write_text(_toml(data.federation))
    address = f"localhost:{free_port()}"
    invite = folder / "lab.invite"
    _run(environment, "server", "init", agreement, "--address", address, "--state", server)
    made = _run(environment, "server", "invite", "lab", "--state", server, "--out", invite)
    fingerprint = made.split("another way: ")[1].split()[0]
    log = folder / "server.log"
    coordinator = _start(environment, log, "server", "start", "--state", server)
    started = [coordinator]
    try:
        until(lambda: "listening" in log.read_text(), "the coordinator listens")
        stamps = [time.perf_counter()]
        yes = ("--yes", "--fingerprint", fingerprint)
        _run(environment, "lab", "join", invite, "--data", data.path, "--state", state, *yes)
        stamps.append(time.perf_counter())
        lab_log = folder / "lab.log"
        started.append(_start(environment, lab_log, "lab", "start", "--state", state))
        until(lambda: "ready" in lab_log.read_text(), "the lab is ready")
        stamps.append(time.perf_counter())
        until(lambda: "round=1" in log.read_text(), "the first round is counted")
        stamps.append(time.perf_counter())
    finally:
        for process in started:
            process.terminate()
            process.wait(20)
    steps = [after - before for before, after in pairwise(stamps)]
    return (*steps, stamps[-1] - stamps[0])


def _toml(agreement: dict[str, object]) -> str:
    return tomli_w.dumps(agreement | {"privacy": {"min_specimens": 4}})


def _run(environment: dict[str, str], *arguments: object) -> str:
    command = [str(BIN / "crossply"), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def _start(environment: dict[str, str], log: Path, *arguments: object) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(
            [str(BIN / "crossply"), *map(str, arguments)],
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


if __name__ == "__main__":
    main()
