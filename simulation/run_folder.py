"""The folder that a run is written to: claimed before any work, and never another run's."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from common.errors import ConfigurationError

OTHER_RUNS = ("study.db", "*.checkpoint")
"""What a sweep's and a coordinator's folders hold from the beginning."""


@contextmanager
def run_folder(out: Path | None, parent: Path, name: str) -> Iterator[Path]:
    """Claim a run's folder for a block; it goes again if the block fails and leaves it empty.

    Parameters
    ----------
    out : Path or None
        None makes a new one.
    parent : Path
        Of a new one.
    name : str
        What a new one is named after.
    """
    from simulation.report import RESULT

    ours = out is None or not out.exists()
    if out is None:
        claimed = new_run_folder(parent, name)
    else:
        claimed = out
        claim_folder(out, (RESULT, *OTHER_RUNS))
    try:
        yield claimed
    except BaseException:
        # of a refused data set, say, nothing is written; what was is kept
        if ours and not any(claimed.iterdir()):
            claimed.rmdir()
        raise


def claim_folder(out: Path, foreign: Sequence[str]) -> None:
    """Make the run's folder before any work, so that a bad name costs no training.

    Parameters
    ----------
    out : Path
    foreign : sequence of str
        Patterns of files that say that the folder is another run's.
    """
    if any(path for pattern in foreign for path in out.glob(pattern)):
        raise ConfigurationError(f"{out} holds a run already; name another folder with --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            return
    except OSError as error:
        raise ConfigurationError(f"{out} cannot be written to: {error.strerror}") from error


def new_run_folder(parent: Path, name: str) -> Path:
    """Make a folder that was not there yet, named after the present time.

    Raises
    ------
    ConfigurationError
        If none can be made.
    """
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "run"
    stem = f"{slug}-{datetime.now():%Y%m%d-%H%M%S}"
    number, out = 1, parent / stem
    try:
        parent.mkdir(parents=True, exist_ok=True)
        while not _is_made(out):
            number += 1
            out = parent / f"{stem}-{number}"
    except OSError as error:
        raise _unwritable(out, error) from error
    return out


def _is_made(out: Path) -> bool:
    """Make a folder; False if another run has taken the name, in this very second perhaps."""
    try:
        out.mkdir()
    except FileExistsError:
        return False
    return True


def _unwritable(out: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"{out} cannot be written to: {error.strerror}")
