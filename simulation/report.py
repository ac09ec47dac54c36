"""What a simulation leaves behind: result.json, predictions.csv, parity.png, a page, a model."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tomli_w

from client.verdict import sentence
from common.bundle import FOLDER_NAME as MODEL_FOLDER
from common.errors import RequestError
from common.federation import FILE_NAME, SIMULATION
from common.files import write_atomically
from common.metrics import as_finite
from common.report.content import MOST_LABS
from common.report.page import write_report
from common.spreadsheet import as_text
from common.threads import one_thread
from simulation.calibration import calibrated, coverages, inside_the_domain
from simulation.crosslab import (
    cross_errors,
    feature_distances,
    lab_contributions,
    left_out,
)
from simulation.experiment import Outcome
from simulation.page import simulation_report
from simulation.parity import parity_png
from simulation.released import simulated_release
from simulation.scenarios.happened import scenario_record
from simulation.verdict import gains

log = logging.getLogger(__name__)

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
    if outcome.evidence.results:
        try:
            simulated_release(outcome).write(folder / MODEL_FOLDER)
        except RequestError as error:
            # in a scenario that makes a head explode, that is what there is to tell
            log.warning("no model of this run: %s", error)
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


def closing_sentence(outcome: Outcome) -> str:
    """Say whether joining pays, or what would have to run to know."""
    if not {"federated", "local"} <= outcome.predicted.keys():
        return "Run the modes federated and local to see whether joining pays."
    return sentence(gains(outcome))
