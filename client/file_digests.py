"""SHA-256 of the lab's image files, remembered as long as a file is plainly the same.

The memo lies on the lab's own disk beside its features. It serves for looking features up; where
the lab declares checksums, to find bytes that rotted unseen, files are read in full each time.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path

from client.database import Schema, reading, transaction
from client.reading.checksums import sha256_of
from common.errors import StateError

log = logging.getLogger(__name__)

DIGESTS = "files.sqlite"
"""The memo's name beside the kept features."""

SETTLED_NS = 2_000_000_000
"""A file that was changed less than this before it was read may change again within the same tick
of the file system's clock, unseen: it is not remembered."""

_SCHEMA = Schema(
    version=1,
    tables="""
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL) WITHOUT ROWID
""",
)


class FileDigests:
    """Digests of files, from memory where size and times are those that were remembered.

    Parameters
    ----------
    path : Path
        The memo's file.

    Examples
    --------
    >>> import hashlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "a.png"
    ...     _ = file.write_bytes(b"pixels")
    ...     digests = FileDigests(Path(folder) / "files.sqlite")
    ...     digests.of(file) == hashlib.sha256(b"pixels").hexdigest()
    True
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: Mapping[str, tuple[int, int, int, str]] = self._load()
        self._new: dict[str, tuple[int, int, int, str]] = {}

    def of(self, path: Path) -> str:
        """Return the SHA-256 of a file, in hexadecimal; may be called from several threads.

        Raises
        ------
        OSError
            If it cannot be read.
        """
        status = path.stat()
        stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        name = os.fspath(path)
        known = self._known.get(name)
        if known is not None and known[:3] == stamp:
            return known[3]
        begun = time.time_ns()
        digest = sha256_of(path)
        if max(stamp[1:]) + SETTLED_NS < begun:
            self._new[name] = (*stamp, digest)
        return digest

    def save(self) -> None:
        """Remember what was read since; a memo that cannot be written costs only time."""
        if not self._new:
            return
        rows = [
            (path, *entry)
            for path, entry in self._new.items()
            # SQLite keeps text in UTF-8, which some file names are not
            if _is_text(path)
        ]
        try:
            with transaction(self._path, _SCHEMA) as database:
                database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", rows)
        except (OSError, sqlite3.Error) as error:
            log.info("digests are not remembered in %s: %s", self._path, error)
        self._new.clear()

    def _load(self) -> dict[str, tuple[int, int, int, str]]:
        if not self._path.exists():
            return {}
        try:
            with reading(self._path, _SCHEMA) as database:
                rows = database.execute("SELECT * FROM files").fetchall()
        except sqlite3.Error as error:
            log.info("digests remembered in %s cannot be read: %s", self._path, error)
            return {}
        return {path: (size, mtime, ctime, sha256) for path, size, mtime, ctime, sha256 in rows}


def forget_missing(path: Path) -> None:
    """Forget files that are there no more.

    Raises
    ------
    StateError
        If the memo cannot be used.
    """
    try:
        with transaction(path, _SCHEMA) as database:
            named = database.execute("SELECT path FROM files").fetchall()
            gone = [row for row in named if not Path(*row).exists()]
            database.executemany("DELETE FROM files WHERE path = ?", gone)
    except (OSError, sqlite3.Error) as error:
        raise StateError(f"{path} cannot be used: {error}; remove it, it is made again") from error


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
