"""Small SQLite files on the lab's own disk, each used for one short transaction at a time."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

LOCK_WAIT_S = 60.0
"""How long a process waits for another one that is writing, before it goes on without."""


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database to read from it; no lock is kept, nothing is made, and none is put aside.

    What a writer that was killed left half done is undone first, which needs the right to write.

    Raises
    ------
    sqlite3.Error
        If it is missing, damaged, or being written to for too long.
    """
    uri = f"{path.absolute().as_uri()}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True, timeout=LOCK_WAIT_S)) as database:
        yield database


@contextmanager
def transaction(path: Path, schema: str) -> Iterator[sqlite3.Connection]:
    """Open a database for one transaction, which is committed when the block ends well.

    The transaction holds SQLite's write lock from its start, so that what the block reads is still
    so when it writes. A file that is no sound database is put aside as ``*.damaged``, and an empty
    one takes its place: what it held can be made again.

    Parameters
    ----------
    path : Path
        Made, with its folder, if it is missing.
    schema : str
        Statements that make the tables if they are missing.

    Raises
    ------
    sqlite3.OperationalError
        If another process holds the lock for too long, or the disk is full.
    OSError
        If the folder cannot be made.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "notes.sqlite"
    ...     with transaction(path, "CREATE TABLE IF NOT EXISTS notes (text)") as database:
    ...         _ = database.execute("INSERT INTO notes VALUES ('kept')")
    ...     with transaction(path, "") as database:
    ...         database.execute("SELECT text FROM notes").fetchall()
    [('kept',)]
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with closing(_open(path, schema)) as database:
        try:
            yield database
        except BaseException as error:
            if database.in_transaction:
                database.rollback()
            if _is_damage(error):
                _put_aside(path, error)
            raise
        database.commit()


def _open(path: Path, schema: str) -> sqlite3.Connection:
    try:
        return _begin(path, schema)
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise
        _put_aside(path, error)
        return _begin(path, schema)


def _begin(path: Path, schema: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=LOCK_WAIT_S, isolation_level=None)
    try:
        database.execute("BEGIN IMMEDIATE")
        for statement in schema.split(";"):
            database.execute(statement)
    except BaseException:
        database.close()
        raise
    return database


def _is_damage(error: BaseException) -> bool:
    # an OperationalError is a lock, a full disk, a missing right: the file itself is sound
    is_database_error = isinstance(error, sqlite3.DatabaseError)
    return is_database_error and not isinstance(
        error, sqlite3.OperationalError | sqlite3.IntegrityError | sqlite3.ProgrammingError
    )


def _put_aside(path: Path, error: BaseException) -> None:
    log.warning("%s is damaged (%s); it is put aside and begun anew", path.name, error)
    path.replace(path.with_name(f"{path.name}.damaged"))
