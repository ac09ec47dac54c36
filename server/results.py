"""What a run leaves in a folder: the released model, and ``result.json`` beside it."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common.bundle import FOLDER_NAME as MODEL_FOLDER
from common.errors import StateError
from common.federation import Federation
from common.files import write_atomically
from common.metrics import ErrorSums
from server.release import release_of
from server.state import RunResult

RESULT_NAME = "result.json"


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


def _record(federation: Federation, result: RunResult) -> dict[str, Any]:
    return {
        "federation": federation.name,
        "fingerprint": federation.fingerprint(),
        "version": version("crossply"),
        "labs": list(result.labs),
        "standardiser_of": list(result.standardised),
        "excluded": result.excluded,
        "have_the_model": list(result.released),
        "rounds": [asdict(record) for record in result.history],
        "units": {name: target.unit for name, target in federation.targets.items()},
        "errors": {
            lab: _metrics(sums, federation) for lab, sums in result.evaluation.errors.items()
        },
        "errors_of_all": _metrics(result.evaluation.total("errors"), federation),
    }


def _metrics(sums: ErrorSums | None, federation: Federation) -> dict[str, Any]:
    if sums is None:
        return {}
    return {name: sums.metrics(index) for index, name in enumerate(federation.targets)}
