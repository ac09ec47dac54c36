"""Virtual labs a second: a plain loop, crossply's engines, other simulators, and the floor.

python -m benchmarks.simulation_speed [--rounds N] [--labs N ...] [--rows NAME ...]
    [--peers-python PYTHON] [--json FILE]

The task is that of `benchmarks.simulation_task`: MLP 1280-64-2, 64 specimens a lab, two local
epochs of batch 16, AdamW. Each row is a process of its own, one after the other; a row gives the
median round after the first, wall clock and processor time to the end of round one (imports
included, making data not), the highest memory of its processes, and the error that it ends with,
which shows that all did the same work. The floor is what the machine needs for the products and
for reading and writing parameters and AdamW's moments once a step.

PYTHON is an interpreter that has the other simulators beside crossply's dependencies: a virtual
environment with a .pth file that names the site-packages of this one, and in it
``pip install --no-deps ray==2.55.1 msgpack jsonschema attrs referencing rpds-py
jsonschema-specifications pfl multiprocess dill dp-accounting prv-accountant absl-py mpmath``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.simulation_task import PROJECTED, ROWS, TRAINED, agreement
from common.cores import usable_cores
from common.projection import trained_shapes

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 3600
PEERS = (
    "Flower with Ray, its tutorials' apps",
    "Flower with Ray, crossply's apps",
    "pfl",
    "pfl, AdamW fused",
)
REFUSED = {"BlazeFL": "asks for Python 3.12 or later; crossply runs on 3.11 too"}

BATCHES, BATCH, EPOCHS = TRAINED // 16, 16, 2
TRANSFERS = 9
"""A step reads a weight for the product and writes its slope; AdamW reads weight, slope and two
moments, and writes three of them."""


def best(work: Callable[[], object], repeat: int = 10) -> float:
    """Return the shortest of some runs, in seconds."""
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def machine() -> tuple[float, float]:
    """Return bytes a second to and from memory, and operations a second, on all cores."""
    torch.set_num_threads(usable_cores())
    source = torch.zeros(32 * 2**20)
    target = torch.empty_like(source)
    square = torch.randn(1536, 1536)
    moved = 2 * 4 * source.numel() / best(lambda: target.copy_(source))
    return moved, 2 * 1536**3 / best(lambda: square @ square)


def floor(count: int, projection: str, bandwidth: float, peak: float) -> float:
    """Return the seconds that a round of `count` labs takes at least."""
    weights = sum(prod(shape) for shape in trained_shapes(agreement(1, projection)).values())
    steps = count * EPOCHS * BATCHES
    # forward, and the slopes of the weights: two operations a weight and specimen each
    return steps * weights * (4 * TRANSFERS / bandwidth + 4 * BATCH / peak)


def row(python: str, module: str, name: str, count: int, rounds: int) -> dict[str, Any]:
    """Run one row in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [python, "-m", f"benchmarks.{module}", name, str(count), str(rounds)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"why": str(error)}
    found = [line for line in done.stdout.splitlines() if line.startswith('{"round_s"')]
    if not found:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        return {"why": last[:120]}
    return dict(json.loads(found[-1]))


def measure(
    counts: Sequence[int], names: Sequence[str], rounds: int, peers_python: str | None
) -> list[dict[str, Any]]:
    """Return all rows, largest set of labs last."""
    found: list[dict[str, Any]] = []
    for count in counts:
        for name in names:
            found.append({"labs": count, "name": name})
            if name in REFUSED:
                found[-1]["why"] = REFUSED[name]
            elif name in ROWS:
                found[-1] |= row(sys.executable, "simulation_task", name, count, rounds)
            elif peers_python is None:
                found[-1]["why"] = "no --peers-python given"
            else:
                found[-1] |= row(peers_python, "simulation_peers", name, count, rounds)
    return found


def table(rows: Sequence[dict[str, Any]], bandwidth: float, peak: float) -> Table:
    """Return the table that is printed."""
    made = Table(box=SIMPLE_HEAD)
    headings = ["labs", "engine", "round s", "CPU s", "to the floor"]
    for heading in (*headings, "to round 1 s", "CPU s", "all s", "MiB", "RMSE"):
        made.add_column(heading, justify="left" if heading == "engine" else "right")
    for one in rows:
        if "why" in one:
            made.add_row(str(one["labs"]), f"{one['name']}: {one['why']}")
            continue
        projection = "pca" if one["name"] == PROJECTED else "none"
        made.add_row(
            str(one["labs"]),
            one["name"],
            f"{one['round_s']:.3f}",
            f"{one['round_cpu_s']:.3f}",
            f"{one['round_s'] / floor(one['labs'], projection, bandwidth, peak):.1f}x",
            f"{one['first_s']:.1f}",
            f"{one['first_cpu_s']:.1f}",
            f"{one['whole_s']:.0f}",
            f"{one['peak_mib']:.0f}",
            f"{one['rmse']:.6f}",
        )
    return made


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--labs", type=int, nargs="+", default=[10, 100], metavar="N")
    parser.add_argument("--rounds", type=int, default=6)
    everything = (*ROWS, *PEERS, *REFUSED)
    parser.add_argument("--rows", nargs="+", default=everything, choices=everything, metavar="NAME")
    parser.add_argument("--peers-python", help="interpreter that has other simulators")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args()
    bandwidth, peak = machine()
    rows = measure(sorted(arguments.labs), arguments.rows, arguments.rounds, arguments.peers_python)
    console = Console(width=130)
    console.print(
        f"{platform.processor() or platform.machine()}, {usable_cores()} cores, "
        f"{bandwidth / 1e9:.1f} GB/s, {peak / 1e9:.0f} Gop/s; torch {torch.__version__}; "
        f"load {os.getloadavg()[0]:.1f}"
    )
    console.print(table(rows, bandwidth, peak))
    for count in sorted(arguments.labs):
        full, small = (floor(count, kind, bandwidth, peak) for kind in ("none", "pca"))
        console.print(f"floor with {count} labs: {full:.3f} s a round, on components {small:.4f} s")
    if arguments.json:
        facts = {"bandwidth": bandwidth, "peak": peak, "rows": rows}
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
