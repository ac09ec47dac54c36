"""Accuracy of a head on all features, and on a shared projection of them, side by side.

python -m benchmarks.projection [--data DIR] [--demo] [--json FILE]

Real sets, and with ``--demo`` the demo, each with the network's features alone and with all
descriptors beside them. A row shows R² on held-out specimens, how far it is from the head on all
features, and what a lab sends and receives in a round.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.accuracy import DEMO_FOLDS, DESCRIPTORS_ALL, NO_DESCRIPTORS, SETS, SHARED
from client.feature_store import FeatureStore, default_folder
from common.federation import Federation, load_federation
from common.projection import trained_shapes
from simulation.consortium import open_consortium, read_datasets
from simulation.demo import write_demo
from simulation.experiment import run_experiment

MODES = ("federated", "centralized", "local")

PROJECTIONS = ("none", "pca 64", "pca 128", "pca 256", "random 64", "random 128", "random 256")

DESCRIBED = {"network alone": NO_DESCRIPTORS, "with descriptors": DESCRIPTORS_ALL}


def kilobytes_up_and_down(federation: Federation) -> tuple[float, float]:
    """Return what a lab sends and receives in a round, but for a few hundred bytes of envelope."""
    head = 4 * sum(prod(shape) for shape in trained_shapes(federation).values())
    standardiser = 8 * (3 * federation.num_features + 2 * len(federation.targets))
    sent = federation.head.projection == "pca"
    projection = 4 * federation.num_features * federation.head.num_components if sent else 0
    return head / 1e3, (head + standardiser + projection) / 1e3


def measure(name: str, folder: Path, folds: int | None) -> Iterator[dict[str, Any]]:
    """Run all projections on one set."""
    for described, assignment in DESCRIBED.items():
        federation = load_federation(folder, [assignment])
        datasets = read_datasets(folder, federation)
        consortium = open_consortium(datasets, federation, FeatureStore(default_folder()))
        for projection in PROJECTIONS:
            kind, _, components = projection.partition(" ")
            keys = [f"head.projection={kind}"]
            keys += [f"head.components={components}"] if components else []
            agreed = load_federation(folder, [assignment, *keys])
            outcome = run_experiment(
                replace(consortium, federation=agreed), modes=MODES, folds=folds
            )
            up, down = kilobytes_up_and_down(agreed)
            scores = {mode: outcome.metrics(mode) for mode in MODES}
            for target in agreed.targets:
                yield {
                    "set": name,
                    "features": described,
                    "target": target,
                    "projection": projection,
                    "r2": {mode: scores[mode][target]["r2"] for mode in MODES},
                    "up_kb": up,
                    "down_kb": down,
                }


def measure_all(data: Path, *, demo: bool, console: Console) -> Iterator[dict[str, Any]]:
    """Measure each set that is there."""
    for name, folds in SETS.items():
        if (data / name).is_dir():
            yield from measure(name, data / name, folds)
        else:
            console.print(f"{name} is left out: there is no {data / name}")
    if demo:
        with tempfile.TemporaryDirectory() as scratch:
            write_demo(Path(scratch) / "labs")
            yield from measure("demo", Path(scratch) / "labs", DEMO_FOLDS)


def table(records: list[dict[str, Any]]) -> Table:
    """Lay the records out, one row each."""
    made = Table(title="R² on held-out specimens", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("set", "features", "target", "projection"):
        made.add_column(heading, no_wrap=True)
    for heading in (*MODES, "federated - on all", "kB up", "kB down"):
        made.add_column(heading, justify="right")
    on_all: dict[tuple[str, ...], float] = {}
    for record in records:
        key = (record["set"], record["features"], record["target"])
        federated = record["r2"]["federated"]
        on_all.setdefault(key, federated)
        made.add_row(
            *key,
            record["projection"],
            *(f"{record['r2'][mode]:.3f}" for mode in MODES),
            f"{federated - on_all[key]:+.3f}",
            f"{record['up_kb']:.0f}",
            f"{record['down_kb']:.0f}",
        )
    return made


def main() -> None:
    """Measure, print the table, and write the figures if asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED, help="folder of the real sets")
    parser.add_argument("--demo", action="store_true", help="measure the demo too")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.WARNING)
    console = Console(width=150)
    records = list(measure_all(arguments.data, demo=arguments.demo, console=console))
    console.print(table(records))
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    main()
