"""Accuracy of each mode on real sets and on the demo, side by side, in one run.

python -m benchmarks.accuracy [--data DIR] [--demo-seeds N ...] [--json FILE]

The last columns say by how much federated training beats staying alone, and how near it comes
to pooling all data. Features are deep ones alone (EfficientNet-Lite0, ImageNet).
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from client.feature_store import FeatureStore, default_folder
from common.federation import load_federation
from simulation.consortium import open_consortium, read_datasets
from simulation.demo import write_demo
from simulation.experiment import run_experiment
from simulation.modes import MODES
from simulation.report import result_record

SETS = {"lpbf_surface_ra": 5, "mechanical_mnist_ue": None}
"""Real sets, and the folds inside every lab (None: one held-out fifth)."""

DEMO_FOLDS = 5
SHARED = Path(__file__).parents[1].parent / "shared" / "data"


def measure(name: str, folder: Path, folds: int | None) -> dict[str, Any]:
    """Run all modes on one data set and return its ``result.json``."""
    federation = load_federation(folder)
    datasets = read_datasets(folder, federation)
    consortium = open_consortium(datasets, federation, FeatureStore(default_folder()))
    outcome = run_experiment(consortium, folds=folds)
    return {"set": name, "folds": folds, **result_record(outcome, {})}


def measure_all(
    data: Path, demo_seeds: Sequence[int], console: Console
) -> Iterator[dict[str, Any]]:
    """Measure demos drawn from some seeds, and each real set that is there."""
    for seed in demo_seeds:
        with tempfile.TemporaryDirectory() as scratch:
            labs = Path(scratch) / "labs"
            write_demo(labs, seed=seed)
            yield measure(f"demo, seed {seed}", labs, DEMO_FOLDS)
    for name, folds in SETS.items():
        if (data / name).is_dir():
            yield measure(name, data / name, folds)
        else:
            console.print(f"{name} is left out: there is no {data / name}")


def table(records: list[dict[str, Any]]) -> Table:
    """Lay out R² of each mode, one row a data set and target."""
    shown = Table(title="R² on held-out specimens", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("set", "target", "n"):
        shown.add_column(heading, no_wrap=True)
    for heading in (*MODES, "federated - local", "federated - centralized"):
        shown.add_column(heading.replace("_", " "), justify="right")
    for record in records:
        for target in record["units"]:
            scores = {mode: record["modes"][mode][target] for mode in MODES}
            r2 = {mode: score["r2"] for mode, score in scores.items()}
            shown.add_row(
                record["set"],
                target,
                str(scores["federated"]["num_specimens"]),
                *(f"{r2[mode]:.3f}" for mode in MODES),
                f"{r2['federated'] - r2['local']:+.3f}",
                f"{r2['federated'] - r2['centralized']:+.3f}",
            )
    return shown


def main() -> None:
    """Measure, print the table, and write the figures if asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED, help="folder of the real sets")
    parser.add_argument(
        "--demo-seeds", type=int, nargs="*", default=[0], help="seeds to draw demos from"
    )
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.WARNING)
    console = Console(width=150)
    records = list(measure_all(arguments.data, arguments.demo_seeds, console))
    console.print(table(records))
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    main()
