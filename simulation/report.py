"""What a simulation leaves behind: result.json, predictions.csv, parity.png, and a table."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tomli_w
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from client.verdict import HOLD, JOIN, Gain, sentence
from common.federation import FILE_NAME, SIMULATION
from common.files import write_atomically
from common.report.content import MOST_LABS
from common.report.page import write_report
from common.spreadsheet import as_text
from common.threads import one_thread
from common.units import symbol
from simulation.calibration import calibrated, coverages, inside_the_domain
from simulation.crosslab import (
    cross_errors,
    feature_distances,
    lab_contributions,
    left_out,
)
from simulation.events import in_one_line, virtual_time
from simulation.experiment import Outcome
from simulation.happened import scenario_record
from simulation.page import simulation_report
from simulation.parity import parity_png
from simulation.verdict import gains

RESULT = "result.json"
PREDICTIONS = "predictions.csv"
PARITY = "parity.png"
REPORT = "report.html"

RECORDED_VERSIONS = (
    "crossply",
    "flwr",
    "torch",
    "torchvision",
    "numpy",
    "opencv-python",
    "scikit-learn",
)

MODE_LABELS = {
    "federated": "federated: weights shared",
    "centralized": "centralised: data pooled",
    "local": "local: each lab alone",
    "ridge": "ridge: sums shared, one round",
    "random_forest": "random forest, data pooled",
}


def result_record(outcome: Outcome, seconds: dict[str, float]) -> dict[str, Any]:
    """Return the content of ``result.json``.

    Parameters
    ----------
    outcome : Outcome
    seconds : dict of str to float
        Further times, such as ``features``.
    """
    federation = outcome.consortium.federation
    modes = list(outcome.predicted)
    return {
        "federation": federation.name,
        "fingerprint": federation.fingerprint(),
        "versions": {name: version(name) for name in RECORDED_VERSIONS},
        "seed": federation.training.seed,
        "engine": outcome.engine,
        "modes": {mode: outcome.metrics(mode) for mode in modes},
        "labs": {
            lab.lab: {mode: outcome.metrics(mode, [index]) for mode in modes}
            for index, lab in enumerate(outcome.consortium.labs)
        },
        "units": {name: target.unit for name, target in federation.targets.items()},
        "named_features": federation.named_features,
        "gains": [
            finite(asdict(gain)) | {"gain": gain.mean, "share": gain.share, "verdict": gain.verdict}
            for gain in gains(outcome)
        ],
        **_evidence_record(outcome),
        "sentence": closing_sentence(outcome),
        "excluded": outcome.excluded,
        "seconds": {name: round(value, 3) for name, value in (seconds | outcome.seconds).items()},
        "rounds": [
            {
                "fold": fold,
                "round": record.server_round,
                "loss": as_finite(record.train_loss),
                "labs": list(record.labs),
                "failed": record.failed,
                "quarantined": record.quarantined,
            }
            for fold, record in outcome.rounds
        ],
        **scenario_record(outcome),
    }


def _evidence_record(outcome: Outcome) -> dict[str, Any]:
    """Return what the federated run tells beside its predictions; empty where it did not run."""
    if "federated" not in outcome.predicted:
        return {}
    # many small matrices: threads would wait for each other
    with one_thread():
        return _evidence_found(outcome)


def _evidence_found(outcome: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = {
        "coverage": [finite(asdict(row)) for row in coverages(outcome, calibrated(outcome))],
        "inside_the_domain": inside_the_domain(outcome),
        "left_out": [finite(asdict(row)) for row in left_out(outcome)],
        "contributions": [asdict(row) | {"hurts": row.hurts} for row in lab_contributions(outcome)],
    }
    if (apart := feature_distances(outcome)) is not None:
        found["distances"] = {"labs": apart[0], "values": apart[1].tolist()}
    if "local" in outcome.predicted and len(outcome.consortium.labs) <= MOST_LABS:
        found["cross_errors"] = {
            name: [[as_finite(value) for value in row] for row in cross_errors(outcome, column)]
            for column, name in enumerate(outcome.consortium.federation.targets)
        }
    return found


def finite(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with None in place of numbers that JSON does not have."""
    return {
        key: as_finite(value) if isinstance(value, float) else value
        for key, value in record.items()
    }


def as_finite(value: float) -> float | None:
    """Return a number, or None for what JSON does not have."""
    return float(value) if np.isfinite(value) else None


def write_run(outcome: Outcome, record: dict[str, Any], folder: Path) -> None:
    """Write the run's folder; ``result.json`` comes last, and is there only when all is."""
    folder.mkdir(parents=True, exist_ok=True)
    federation = outcome.consortium.federation
    data = federation.model_dump(mode="json", exclude_none=True)
    if outcome.scenario is not None:
        data[SIMULATION] = outcome.scenario.settings()
    write_atomically(folder / FILE_NAME, tomli_w.dumps(data))
    write_atomically(folder / PREDICTIONS, predictions_csv(outcome))
    write_atomically(folder / PARITY, parity_png(outcome))
    with one_thread():
        page = simulation_report(outcome, MODE_LABELS, closing_sentence(outcome))
    write_report(folder / REPORT, page)
    write_atomically(folder / RESULT, json.dumps(record, indent=2, allow_nan=False) + "\n")


def predictions_csv(outcome: Outcome) -> str:
    """Return one row a held-out specimen: measured, predicted by each mode, described; in units."""
    federation = outcome.consortium.federation
    targets = federation.targets
    tables = []
    for index, lab in enumerate(outcome.consortium.labs):
        rows = np.flatnonzero(outcome.fold[index] >= 0)
        columns: dict[str, Any] = {
            "lab": as_text(lab.lab),
            "specimen": [as_text(lab.ids[row]) for row in rows],
            "fold": outcome.fold[index][rows],
        }
        for column, (name, target) in enumerate(targets.items()):
            columns[f"{name} ({target.unit})"] = lab.targets[rows, column]
            for mode, predicted in outcome.predicted.items():
                columns[f"{name} {mode}"] = predicted[index][rows, column]
        for column, (name, unit) in enumerate(federation.named_features.items()):
            columns[f"{name} ({unit})"] = lab.features[rows, federation.num_deep_features + column]
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables).to_csv(index=False, lineterminator="\n")


def print_summary(outcome: Outcome, console: Console) -> None:
    """Print what a person wants to know: each mode, each lab, and one plain sentence."""
    found = gains(outcome)
    for name in outcome.consortium.federation.targets:
        console.print(_modes_table(outcome, name), "")
        of_target = [gain for gain in found if gain.target == name]
        if of_target:
            console.print(_labs_table(of_target), "")
    for lab, reason in outcome.excluded.items():
        console.print(Text(f"{lab} was put out of the federated run: {reason}", "red"))
    if outcome.diary.events:
        told = f"{in_one_line(outcome.diary.events)} {virtual_time(outcome.diary.times)}"
        console.print(Text(told.strip()))
    console.print(Text(closing_sentence(outcome), "bold"))


def closing_sentence(outcome: Outcome) -> str:
    """Say whether joining pays, or what would have to run to know."""
    if not {"federated", "local"} <= outcome.predicted.keys():
        return "Run the modes federated and local to see whether joining pays."
    return sentence(gains(outcome))


def _modes_table(outcome: Outcome, target: str) -> Table:
    rows = {mode: outcome.metrics(mode)[target] for mode in outcome.predicted}
    unit = _in_brackets(outcome.consortium.federation.targets[target].unit)
    table = _table(f"{target}: specimens predicted while held out")
    table.add_column("mode")
    for heading in ("specimens", "R²", f"MAE{unit}", f"RMSE{unit}"):
        table.add_column(heading, justify="right")
    for mode, row in rows.items():
        count, r2 = str(row["num_specimens"]), _shown(row["r2"], ".3f")
        cells = [count, r2, _shown(row["mae"]), _shown(row["rmse"])]
        table.add_row(MODE_LABELS[mode], *cells, style="bold" if mode == "federated" else "")
    return table


def _labs_table(of_target: list[Gain]) -> Table:
    unit = _in_brackets(of_target[0].unit)
    table = _table(f"{of_target[0].target}: mean absolute error of each lab{unit}")
    table.caption = "tests: how many more of its own would be worth as much"
    table.caption_justify = "left"
    # in the 80 columns of a plain terminal too
    table.pad_edge = False
    table.collapse_padding = True
    table.add_column("lab", overflow="fold", min_width=12)
    for heading in ("n", "alone", "joined", "gain, 95 %"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("joining", no_wrap=True)
    table.add_column("tests", justify="right", no_wrap=True)
    colours = {JOIN: "green", HOLD: "red"}
    for gain in of_target:
        table.add_row(
            Text(gain.lab),
            str(gain.num_specimens),
            *(_shown(error) for error in (gain.alone, gain.joined)),
            f"{gain.mean:+.2g} ({gain.low:.2g} to {gain.high:.2g})",
            gain.verdict,
            _more(gain),
            style=colours.get(gain.verdict, ""),
        )
    return table


def _more(gain: Gain) -> str:
    """Say how many more specimens of its own would have brought a lab as much as joining."""
    if gain.more_specimens is None or gain.verdict != JOIN:
        return "–"
    if np.isinf(gain.more_specimens):
        return f"> {gain.most_specimens}"
    return f"{max(gain.more_specimens, 1.0):.0f}"


def _table(title: str) -> Table:
    return Table(title=Text(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD)


def _in_brackets(unit: str) -> str:
    return f" ({symbol(unit)})" if symbol(unit) else ""


def _shown(value: float | None, form: str = "#.3g") -> str:
    return "–" if value is None else format(value, form)
