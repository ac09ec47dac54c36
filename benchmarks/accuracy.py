"""Accuracy of each mode on real sets and on the demo, side by side, in one run.

python -m benchmarks.accuracy [--data DIR] [--demo-seeds N ...] [--json FILE]

Features are those of EfficientNet-Lite0 (ImageNet): of the whole micrograph in one tile, or of
tiles that cover it; alone, or with all classical descriptors beside them. The last columns say by
how much federated training beats staying alone, and how near it comes to pooling all data.

A second table is about what a lab acts on: whether intervals hold and how wide they are, the
version of the head that each lab would use, features aligned where that helps, and what a model is
worth at a lab that it has never seen.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from client.choice import ALIGNED, PERSONALISED
from client.evaluation import predict_in_units
from client.feature_store import FeatureStore, default_folder
from client.lab import split_lab
from common.descriptors import DESCRIPTORS
from common.federation import load_federation
from common.metrics import ErrorSums
from common.threads import one_thread
from common.units import symbol
from server.state import RunResult
from simulation.calibration import ALL
from simulation.consortium import open_consortium, read_datasets
from simulation.demo import write_demo
from simulation.experiment import Outcome, run_experiment
from simulation.modes import MODES, federated
from simulation.report import result_record
from simulation.verdict import chosen_predictions

SETS = {"lpbf_surface_ra": 5, "mechanical_mnist_ue": None}
"""Real sets, and the folds inside every lab (None: one held-out fifth)."""

WHOLE: tuple[str, ...] = ()
"""One tile a micrograph, as the real sets' own federation files ask for."""

TILES = {
    "lpbf_surface_ra": ("imaging.scale=pixels", "imaging.tile_px=224"),
    # 28 px are less than any tile: enlarged eight times, and cut in four
    "mechanical_mnist_ue": (
        "imaging.scale=physical",
        "imaging.um_per_px=0.125",
        "imaging.tile_px=112",
    ),
}
DESCRIPTORS_ALL = f"descriptors.names={json.dumps(list(DESCRIPTORS))}"
NO_DESCRIPTORS = "descriptors.names=[]"

DEMO_FOLDS = 5
SHARED = Path(__file__).parents[1].parent / "shared" / "data"


def measure(
    name: str, folder: Path, folds: int | None, features: str, assignments: Sequence[str]
) -> dict[str, Any]:
    """Run all modes on one data set and return its ``result.json``."""
    federation = load_federation(folder, assignments)
    datasets = read_datasets(folder, federation)
    consortium = open_consortium(datasets, federation, FeatureStore(default_folder()))
    outcome = run_experiment(consortium, folds=folds)
    record = {"set": name, "features": features, "folds": folds}
    return record | result_record(outcome, {}) | {"r2_of": r2_of_versions(outcome)}


def r2_of_versions(outcome: Outcome) -> dict[str, dict[str, float]]:
    """Return R² over all labs of each version of the head and of ridge regression, by target."""
    versions = {
        "shared": outcome.predicted["federated"],
        "best": chosen_predictions(outcome),
        "personalised": outcome.evidence.versions[PERSONALISED],
        "aligned": outcome.evidence.versions[ALIGNED],
        "ridge": outcome.evidence.versions["ridge"],
        "left out": predicted_unseen(outcome),
        "ridge, left out": outcome.evidence.versions["left out"],
    }
    measured = np.concatenate([lab.targets for lab in outcome.consortium.labs])
    shift = outcome.consortium.federation.target_shift
    found = {}
    for name, predicted in versions.items():
        sums = ErrorSums.of(measured, np.concatenate(predicted), shift)
        found[name] = {
            target: sums.metrics(column)["r2"]
            for column, target in enumerate(outcome.consortium.federation.targets)
        }
    return found


def predicted_unseen(outcome: Outcome) -> list[np.ndarray]:
    """Predict each lab's held-out specimens by a federated head that never saw the lab."""
    consortium = outcome.consortium
    found = [np.full(lab.targets.shape, np.nan) for lab in consortium.labs]
    with one_thread():
        for fold in range(int(max(of_lab.max() for of_lab in outcome.fold)) + 1):
            labs = [
                split_lab(lab, consortium.federation, of_lab == fold)
                for lab, of_lab in zip(consortium.labs, outcome.fold, strict=True)
            ]
            for index, lab in enumerate(labs):
                results: list[RunResult] = []
                federated([*labs[:index], *labs[index + 1 :]], on_result=results.append)
                found[index][outcome.fold[index] == fold] = predict_in_units(
                    results[0].head, results[0].standardiser, lab.held_out.features
                )
    return found


def measure_all(
    data: Path, demo_seeds: Sequence[int], console: Console
) -> Iterator[dict[str, Any]]:
    """Measure demos drawn from some seeds, and each real set that is there."""
    for seed in demo_seeds:
        with tempfile.TemporaryDirectory() as scratch:
            labs = Path(scratch) / "labs"
            write_demo(labs, seed=seed)
            for features, assignments in _variants({"tiles": ()}):
                yield measure(f"demo, seed {seed}", labs, DEMO_FOLDS, features, assignments)
    for name, folds in SETS.items():
        if not (data / name).is_dir():
            console.print(f"{name} is left out: there is no {data / name}")
            continue
        with tempfile.TemporaryDirectory() as scratch:
            folder = _with_a_scale(data / name, Path(scratch) / name)
            for features, assignments in _variants({"whole": WHOLE, "tiles": TILES[name]}):
                yield measure(name, folder, folds, features, assignments)


def _variants(imaging: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name, assignments in imaging.items():
        yield name, (*assignments, NO_DESCRIPTORS)
        yield f"{name}, descriptors", (*assignments, DESCRIPTORS_ALL)


def _with_a_scale(source: Path, folder: Path) -> Path:
    """Copy a set, whose pixels then are 1 µm, so that it can be enlarged by a known factor."""
    for path in source.rglob("*"):
        if path.is_file():
            # not copytree: it would keep the folders' missing right to write
            (folder / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / path.relative_to(source))
    settings = folder / "lab.toml"
    settings.write_text(settings.read_text().replace("[data]", "[data]\num_per_px = 1.0", 1))
    return folder


def table(records: list[dict[str, Any]]) -> Table:
    """Lay out R² of each mode, one row a data set and target."""
    shown = Table(title="R² on held-out specimens", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("set", "features", "target", "n"):
        shown.add_column(heading, no_wrap=True)
    for heading in (*MODES, "federated - local", "federated - centralized"):
        shown.add_column(heading.replace("_", " "), justify="right")
    for record in records:
        for target in record["units"]:
            scores = {mode: record["modes"][mode][target] for mode in MODES}
            r2 = {mode: score["r2"] for mode, score in scores.items()}
            shown.add_row(
                record["set"],
                record["features"],
                target,
                str(scores["federated"]["num_specimens"]),
                *(f"{r2[mode]:.3f}" for mode in MODES),
                f"{r2['federated'] - r2['local']:+.3f}",
                f"{r2['federated'] - r2['centralized']:+.3f}",
            )
    return shown


def acting_table(records: list[dict[str, Any]]) -> Table:
    """Lay out what a lab acts on, one row a data set and target."""
    shown = Table(title="What a lab acts on", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("set", "features", "target"):
        shown.add_column(heading, no_wrap=True)
    for heading in ("covered at 80 %", "at 90 %", "worst lab at 90 %", "width at 90 %"):
        shown.add_column(heading, justify="right")
    for name in records[0]["r2_of"]:
        shown.add_column(f"R² {name}", justify="right")
    for record in records:
        for target in record["units"]:
            rows = [row for row in record["coverage"] if row["target"] == target]
            overall = {row["level"]: row for row in rows if row["lab"] == ALL}
            worst = min(row["covered"] for row in rows if row["lab"] != ALL and row["level"] == 0.9)
            shown.add_row(
                record["set"],
                record["features"],
                target,
                f"{overall[0.8]['covered']:.1%}",
                f"{overall[0.9]['covered']:.1%}",
                f"{worst:.1%}",
                f"{overall[0.9]['width']:.3g} {symbol(record['units'][target])}",
                *(f"{of_target[target]:.3f}" for of_target in record["r2_of"].values()),
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
    console = Console(width=210)
    records = list(measure_all(arguments.data, arguments.demo_seeds, console))
    console.print(table(records))
    console.print(acting_table(records))
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    main()
