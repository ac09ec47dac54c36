"""Small SQLite files on the lab's own disk, each used for one short transaction at a time."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

LOCK_WAIT_S = 60.0
"""How long a process waits for another one that is writing, before it goes on without."""


class VersionError(sqlite3.OperationalError):
    """A database is of another version than this crossply reads and writes."""


@dataclass(frozen=True, kw_only=True)
class Schema:
    """What a database holds.

    Attributes
    ----------
    version : int
        From 1 on; counts up when the tables change. SQLite keeps it as ``user_version``.
    tables : str
        Statements that make the tables if they are missing.
    """

    version: int
    tables: str


@contextmanager
def reading(path: Path, schema: Schema) -> Iterator[sqlite3.Connection]:
    """Open a database to read from it; no lock is kept, nothing is made, and none is put aside.

    What a writer that was killed left half done is undone first, which needs the right to write.

    Raises
    ------
    sqlite3.Error
        If it is missing, damaged, of another version, or being written to for too long.
    """
    uri = f"{path.absolute().as_uri()}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True, timeout=LOCK_WAIT_S)) as database:
        found = _version(database)
        if found != schema.version:
            raise _of_another_version(path, found, schema)
        yield database


@contextmanager
def transaction(path: Path, schema: Schema) -> Iterator[sqlite3.Connection]:
    """Open a database for one transaction, which is committed when the block ends well.

    The transaction holds SQLite's write lock from its start, so that what the block reads is still
    so when it writes. A file that is no sound database is put aside as ``*.damaged``, one of an
    older version as ``*.outdated``, and an empty one takes its place: what it held can be made
    again. One of a newer version is left alone.

    Parameters
    ----------
    path : Path
        Made, with its folder, if it is missing.
    schema : Schema

    Raises
    ------
    VersionError
        If a newer crossply has written it.
    sqlite3.OperationalError
        If another process holds the lock for too long, or the disk is full.
    OSError
        If the folder cannot be made.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "notes.sqlite"
    ...     schema = Schema(version=1, tables="CREATE TABLE IF NOT EXISTS notes (text)")
    ...     with transaction(path, schema) as database:
    ...         _ = database.execute("INSERT INTO notes VALUES ('kept')")
    ...     with transaction(path, schema) as database:
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
                _put_aside(path, "damaged", str(error))
            raise
        database.commit()


def outdated_of(path: Path) -> Path:
    """Return where a database of an older version is put aside."""
    return _aside(path, "outdated")


def _open(path: Path, schema: Schema) -> sqlite3.Connection:
    try:
        database, found = _begin(path)
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise
        _put_aside(path, "damaged", str(error))
        database, found = _begin(path)
    try:
        if found is not None and found > schema.version:
            raise _of_another_version(path, found, schema)
        if found is not None and found < schema.version:
            database.close()
            _put_aside(path, "outdated", f"version {found}, this is {schema.version}")
            database, _ = _begin(path)
        for statement in schema.tables.split(";"):
            database.execute(statement)
        # a pragma takes no parameters
        database.execute(f"PRAGMA user_version = {schema.version:d}")
    except BaseException:
        database.close()
        raise
    return database


def _begin(path: Path) -> tuple[sqlite3.Connection, int | None]:
    """Take the write lock, and tell the version; None for a database without tables."""
    database = sqlite3.connect(path, timeout=LOCK_WAIT_S, isolation_level=None)
    try:
        database.execute("BEGIN IMMEDIATE")
        (num_tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return database, _version(database) if num_tables else None
    except BaseException:
        database.close()
        raise


def _version(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def _of_another_version(path: Path, found: int, schema: Schema) -> VersionError:
    age = "a newer" if found > schema.version else "an older"
    return VersionError(
        f"{path.name} was written by {age} crossply (version {found}, this one has "
        f"{schema.version})"
    )


def _is_damage(error: BaseException) -> bool:
    # an OperationalError is a lock, a full disk, a missing right: the file itself is sound
    is_database_error = isinstance(error, sqlite3.DatabaseError)
    return is_database_error and not isinstance(
        error, sqlite3.OperationalError | sqlite3.IntegrityError | sqlite3.ProgrammingError
    )


def _put_aside(path: Path, what: str, why: str) -> None:
    log.warning("%s is %s (%s); it is put aside and begun anew", path.name, what, why)
    path.replace(_aside(path, what))


def _aside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.name}.{what}")
