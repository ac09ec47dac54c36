"""Where the files of a lab are looked for."""

from __future__ import annotations

import os
from pathlib import Path

from common.errors import ConfigurationError
from common.federation import FILE_NAME


def find_federation(folder: Path) -> Path:
    """Return the federation file in a lab's folder, or the one beside the folder.

    Raises
    ------
    ConfigurationError
        If there is none.
    """
    for path in (folder / FILE_NAME, folder.absolute().parent / FILE_NAME):
        # whatever has the name is meant; what is no regular file is refused when it is read
        if os.path.lexists(path):
            return path
    raise ConfigurationError(
        f"{folder} holds no {FILE_NAME}, nor does its parent; name it with --federation FILE"
    )
