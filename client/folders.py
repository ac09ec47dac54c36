"""Where the files of a lab are looked for, and what is said where they are not."""

from __future__ import annotations

import os
from pathlib import Path

from client.findings import printable
from client.settings import require_lab
from common.bundle import FOLDER_NAME as MODEL_FOLDER
from common.errors import ConfigurationError
from common.federation import FILE_NAME
from common.sealed import SUMS

OF_SIMULATIONS = ("predictions.csv", "sweep.json")
"""Files that runs of virtual labs leave, and no released model holds."""


def find_federation(folder: Path) -> Path:
    """Return the federation file in a lab's folder, or the one beside the folder.

    Raises
    ------
    ConfigurationError
        If there is none, or if it is no lab's folder.
    """
    require_lab(folder)
    for path in (folder / FILE_NAME, folder.absolute().parent / FILE_NAME):
        # whatever has the name is meant; what is no regular file is refused when it is read
        if os.path.lexists(path):
            return path
    raise ConfigurationError(
        f"{folder} holds no {FILE_NAME}, nor does its parent; name it with --federation FILE"
    )


def require_model(folder: Path) -> None:
    """Refuse a path where no released model is, with what to name in its place.

    Raises
    ------
    ConfigurationError
    """
    shown = printable(str(folder))
    if (folder / SUMS).exists():
        return
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ConfigurationError(
            f"{shown} {what}; name the folder of a released model: {MODEL_FOLDER}/ in a lab's "
            "state folder, or in run/ of the coordinator's"
        )
    if (folder / MODEL_FOLDER / SUMS).exists():
        raise ConfigurationError(
            f"{shown} is no released model, and {printable(str(folder / MODEL_FOLDER))} is one; "
            "name that"
        )
    if any((folder / name).exists() for name in OF_SIMULATIONS):
        raise ConfigurationError(
            f"{shown} is the run of a simulation, which compares and leaves no model; labs that "
            "train together for real get one, with `crossply server start` and "
            "`crossply lab start`"
        )
