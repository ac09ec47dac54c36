"""What a run leaves in a folder: the released model, ``result.json`` and ``report.html``."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from common.bundle import FOLDER_NAME as MODEL_FOLDER
from common.errors import StateError
from common.federation import Federation
from common.files import write_atomically
from common.metrics import ErrorSums, as_finite
from common.threads import one_thread
from server.release import release_of
from server.state import RunResult

RESULT_NAME, REPORT_NAME = "result.json", "report.html"


def write_result(folder: Path, federation: Federation, result: RunResult) -> None:
    """Write ``model/``, and ``result.json`` beside it: the same bytes whenever it is done again.

    Raises
    ------
    StateError
        If the folder cannot be written to.
    """
    try:
        folder.mkdir(exist_ok=True, mode=0o700)
        release_of(federation, result).write(folder / MODEL_FOLDER)
        text = json.dumps(_record(federation, result), indent=2) + "\n"
        write_atomically(folder / RESULT_NAME, text)
    except OSError as error:
        raise StateError(
            f"the result cannot be written to {folder}: {error.strerror}; make room and start again"
        ) from error


def write_page(
    folder: Path, federation: Federation, result: RunResult, *, judged: bool = False
) -> Path:
    """Write ``report.html`` for the coordinator, and return its path.

    Parameters
    ----------
    folder : Path
    federation : Federation
    result : RunResult
    judged : bool
        Whether it says what each lab contributes: labs should have agreed to that.

    Raises
    ------
    StateError
        If the folder cannot be written to.
    """
    # matplotlib comes with it, and a coordinator that waits needs none
    from common.report.page import write_report
    from server.page import coordinator_report

    path = folder / REPORT_NAME
    try:
        with one_thread():
            write_report(path, coordinator_report(federation, result, judged=judged))
    except OSError as error:
        raise StateError(
            f"{path} cannot be written: {error.strerror}; make room, then: crossply server report"
        ) from error
    return path


def _record(federation: Federation, result: RunResult) -> dict[str, Any]:
    return {
        "federation": federation.name,
        "fingerprint": federation.fingerprint(),
        "version": version("crossply"),
        "labs": list(result.labs),
        "standardiser_of": list(result.standardised),
        "named_in_card": list(result.named_in_card),
        "excluded": result.excluded,
        "have_the_model": list(result.released),
        "rounds": [asdict(record) for record in result.history],
        "units": {name: target.unit for name, target in federation.targets.items()},
        "errors": {
            lab: _metrics(sums, federation) for lab, sums in result.evaluation.errors.items()
        },
        "errors_of_all": _metrics(result.evaluation.total("errors"), federation),
        "cross_errors": {
            lab: {other: _by_target(errors, federation) for other, errors in at_labs.items()}
            for lab, at_labs in result.crossed.items()
        },
    }


def _by_target(errors: np.ndarray, federation: Federation) -> dict[str, float | None]:
    return {name: as_finite(error) for name, error in zip(federation.targets, errors, strict=True)}


def _metrics(sums: ErrorSums | None, federation: Federation) -> dict[str, Any]:
    if sums is None:
        return {}
    return {name: sums.metrics(index) for index, name in enumerate(federation.targets)}
