"""Why sums are taken as they are: figures behind docs/decisions/gram-sums.md and worth.md.

python -m benchmarks.sums [--data DIR]

Three tables on the demo, with its descriptors too, and on the real sets; the folds of `accuracy`:
R² of ridge regression along bases found by none to two passes, and along an exact decomposition;
width of intervals that cover alike with and without a constant beside the dropout's spread; the
lowest contribution of an honest lab, and the highest of a lab whose labels have been shuffled.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.accuracy import DEMO_FOLDS, NO_DESCRIPTORS, SETS, SHARED
from client.alone import fit_standardiser
from client.feature_store import FeatureStore, default_folder
from client.lab import HELD_OUT_FOLDS
from client.uncertainty import dropout_spread
from common.components import first_basis, num_components, orthonormal, product_with
from common.federation import load_federation
from common.gram import GramSums
from common.metrics import ErrorSums
from common.ridge import fit_ridge
from common.threads import one_thread
from server.contribution import contributions
from simulation.consortium import Consortium, open_consortium, read_datasets
from simulation.demo import write_demo
from simulation.experiment import Outcome, folds_of_labs, run_experiment

FLOORS = (0.0, 0.1, 0.2, 0.3, 0.5)
LEVEL = 0.9
SPLITS = 50


def consortia(data: Path, scratch: Path) -> Iterator[tuple[str, Consortium, int | None]]:
    """Open the demo, with its descriptors and without, and each real set that is there."""
    write_demo(scratch / "demo")
    sets: dict[str, int | None] = dict(SETS)
    folders: list[tuple[str, Path, int | None, list[str]]] = [
        ("demo, descriptors", scratch / "demo", DEMO_FOLDS, []),
        ("demo", scratch / "demo", DEMO_FOLDS, [NO_DESCRIPTORS]),
        *((name, data / name, sets[name], []) for name in sets),
    ]
    for name, folder, folds, assignments in folders:
        if folder.is_dir():
            federation = load_federation(folder, assignments)
            datasets = read_datasets(folder, federation)
            store = FeatureStore(default_folder())
            yield name, open_consortium(datasets, federation, store), folds


def r2_along(consortium: Consortium, folds: int | None) -> dict[str, list[float]]:
    """Return R² of each target by how the basis was found."""
    federation = consortium.federation
    features = np.concatenate([lab.features for lab in consortium.labs])
    targets = np.concatenate([lab.targets for lab in consortium.labs])
    fold = np.concatenate(folds_of_labs(consortium, folds or HELD_OUT_FOLDS))
    names = ("no pass", "one pass", "two passes", "exact")
    predicted = {name: np.full(targets.shape, np.nan) for name in names}
    for held_out in range(folds or 1):
        train, test = fold != held_out, fold == held_out
        standardiser = fit_standardiser(federation, features[train], targets[train])
        x = standardiser.features(features[train]).astype(np.float64)
        y, tried = standardiser.targets(targets[train]), standardiser.features(features[test])
        count = num_components(x.shape[1], len(x))
        basis = first_basis(x.shape[1], count, federation.training.seed)
        bases = [basis]
        for _ in range(2):
            bases.append(orthonormal(product_with(x, bases[-1])))
        bases.append(np.linalg.svd(x, full_matrices=False)[2][:count].T)
        for name, along in zip(names, bases, strict=True):
            fit = fit_ridge(GramSums.of(x @ along, y))
            predicted[name][test] = standardiser.in_units(fit.predict(tried @ along))
    shift = federation.target_shift
    return {
        name: [
            ErrorSums.of(targets, values, shift).metrics(column)["r2"]
            for column in range(targets.shape[1])
        ]
        for name, values in predicted.items()
    }


def widths(outcome: Outcome) -> list[dict[float, float]]:
    """Return, for each target, mean widths by the constant, relative to the narrowest."""
    labs, federation = outcome.consortium.labs, outcome.consortium.federation
    generator = np.random.default_rng(0)
    found = []
    for column in range(len(federation.targets)):
        residuals, dropped = [], []
        for fold, model in enumerate(outcome.evidence.models):
            for index, lab in enumerate(labs):
                rows = outcome.fold[index] == fold
                x = model.standardiser.features(lab.features[rows])
                spread = dropout_spread(model.head, x, federation.head.dropout, 0)[:, column]
                wrong = (
                    lab.targets[rows, column] - outcome.predicted["federated"][index][rows, column]
                )
                residuals.append(np.abs(wrong) / model.standardiser.target_scale[column])
                dropped.append(spread)
        residual, spread = np.concatenate(residuals), np.concatenate(dropped)
        seen = np.isfinite(residual)
        residual, spread = residual[seen], np.maximum(spread[seen], 1e-6)
        halves = [generator.random(len(residual)) < 0.5 for _ in range(SPLITS)]
        found.append({floor: _width(residual, spread, floor, halves) for floor in FLOORS})
    return found


def _width(
    residual: np.ndarray, spread: np.ndarray, floor: float, halves: Sequence[np.ndarray]
) -> float:
    """Return the mean width of intervals that are made on one half and meant for the other."""
    scale = np.sqrt(spread**2 + floor**2)
    found = []
    for half in halves:
        scores = np.sort(residual[half] / scale[half])
        rank = min(int(np.ceil((len(scores) + 1) * LEVEL)), len(scores)) - 1
        found.append(2 * scores[rank] * scale[~half].mean())
    return float(np.mean(found))


def shapley_range(consortium: Consortium, folds: int | None, shuffled: int | None) -> list[float]:
    """Return contributions in one fold: of all honest labs, or of the lab that is shuffled."""
    labs = list(consortium.labs)
    if shuffled is not None:
        order = np.random.default_rng(shuffled).permutation(len(labs[shuffled]))
        labs[shuffled] = replace(labs[shuffled], targets=labs[shuffled].targets[order])
    federation = consortium.federation.replace(training={"rounds": 1})
    made = Consortium(federation=federation, labs=tuple(labs))
    products = run_experiment(made, modes=("federated",), folds=None).evidence.products[0]
    of_labs = contributions(products.of_labs, tuple(federation.targets))
    chosen = [lab.lab for lab in labs] if shuffled is None else [labs[shuffled].lab]
    return [row.value for row in of_labs if row.lab in chosen]


def _table(title: str, headings: Sequence[str]) -> Table:
    shown = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for heading in headings:
        shown.add_column(heading, no_wrap=True)
    return shown


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED, help="folder of the real sets")
    arguments = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.WARNING)
    bases = _table("R² of ridge", ("set", "target", "no pass", "one pass", "two passes", "exact"))
    floors = _table("mean width at 90 %", ("set", "target", *(f"+ {f:g}" for f in FLOORS)))
    shares = _table("contributions", ("set", "honest, lowest", "shuffled, highest", "lowest"))
    with tempfile.TemporaryDirectory() as name, one_thread():
        for label, consortium, folds in consortia(arguments.data, Path(name)):
            targets = list(consortium.federation.targets)
            along = r2_along(consortium, folds)
            for column, target in enumerate(targets):
                cells = (f"{values[column]:.3f}" for values in along.values())
                bases.add_row(label, target, *cells)
            outcome = run_experiment(consortium, modes=("federated",), folds=folds)
            for target, found in zip(targets, widths(outcome), strict=True):
                floors.add_row(label, target, *(f"{width:.2f}" for width in found.values()))
            honest = shapley_range(consortium, folds, None)
            spoiled = [
                value
                for lab in range(len(consortium.labs))
                for value in shapley_range(consortium, folds, lab)
            ]
            ends = (min(honest), max(spoiled), min(spoiled))
            shares.add_row(label, *(f"{value:.3f}" for value in ends))
    console = Console(width=110)
    for table in (bases, floors, shares):
        console.print(table)


if __name__ == "__main__":
    main()
