"""The index of kept features: which row of which shard a key has, in SQLite.

The functions are single steps within a transaction that the store has opened.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import NamedTuple

import numpy as np

from client.database import Schema

SCHEMA = Schema(
    version=1,
    tables="""
CREATE TABLE IF NOT EXISTS shards (
    id INTEGER PRIMARY KEY AUTOINCREMENT, width INTEGER NOT NULL, rows INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS vectors (
    key TEXT PRIMARY KEY, shard INTEGER NOT NULL REFERENCES shards (id), row INTEGER NOT NULL,
    sha256 BLOB NOT NULL, used TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_shard ON vectors (shard)
""",
)

_PLACES = "SELECT key, shard, width, row, sha256, used FROM vectors JOIN shards ON shard = id "


class Place(NamedTuple):
    """Where a vector lies: a row of a shard, with the row's SHA-256 and the day of its last use."""

    key: str
    shard: int
    width: int
    row: int
    sha256: bytes
    used: str

    def holds(self, vector: np.ndarray) -> bool:
        """Tell whether this is the vector that was kept, bit by bit."""
        return _digest(vector) == self.sha256


def today() -> date:
    """Return the day, in UTC, as uses are dated by it."""
    return datetime.now(UTC).date()


def find(index: sqlite3.Connection, keys: Sequence[str]) -> list[Place]:
    """Return the places of the keys that are known."""
    chosen = "WHERE key IN (SELECT value FROM json_each(?))"
    return [Place(*row) for row in index.execute(_PLACES + chosen, (json.dumps(list(keys)),))]


def places_in(index: sqlite3.Connection, shard: int) -> list[Place]:
    """Return the places in one shard."""
    return [Place(*row) for row in index.execute(_PLACES + "WHERE shard = ?", (shard,))]


def add(
    index: sqlite3.Connection, shard: int, begin: int, vectors: Mapping[str, np.ndarray]
) -> None:
    """Note that vectors lie in a shard, one a row from row `begin` on, used today."""
    index.execute("UPDATE shards SET rows = ? WHERE id = ?", (begin + len(vectors), shard))
    index.executemany(
        "INSERT INTO vectors VALUES (?, ?, ?, ?, ?)",
        [
            (key, shard, begin + row, _digest(vector), today().isoformat())
            for row, (key, vector) in enumerate(vectors.items())
        ],
    )


def forget(index: sqlite3.Connection, places: Iterable[Place]) -> None:
    """Forget vectors, unless they lie elsewhere by now."""
    index.executemany(
        "DELETE FROM vectors WHERE key = ? AND shard = ? AND row = ?",
        [(place.key, place.shard, place.row) for place in places],
    )


def date_use(index: sqlite3.Connection, uses: Iterable[tuple[str, str]]) -> None:
    """Date the last use of keys, each a pair of key and day."""
    index.executemany(
        "UPDATE vectors SET used = ? WHERE key = ?", [(used, key) for key, used in uses]
    )


def latest_shard(index: sqlite3.Connection, width: int) -> tuple[int, int] | None:
    """Return the latest shard of vectors of some length, and how many rows it has."""
    latest = "SELECT id, rows FROM shards WHERE width = ? ORDER BY id DESC LIMIT 1"
    row: tuple[int, int] | None = index.execute(latest, (width,)).fetchone()
    return row


def new_shard(index: sqlite3.Connection, width: int) -> int:
    """Begin a shard, and return its number, which no shard had before."""
    made = index.execute("INSERT INTO shards (width, rows) VALUES (?, 0)", (width,)).lastrowid
    assert made is not None, "an INSERT has a row number"
    return made


def forget_shard(index: sqlite3.Connection, shard: int) -> None:
    """Forget a shard and all that lies in it."""
    index.execute("DELETE FROM vectors WHERE shard = ?", (shard,))
    index.execute("DELETE FROM shards WHERE id = ?", (shard,))


def all_shards(index: sqlite3.Connection) -> list[tuple[int, int]]:
    """Return the number and the width of each shard."""
    return index.execute("SELECT id, width FROM shards").fetchall()


def shards_with_dead_rows(index: sqlite3.Connection) -> list[tuple[int, int]]:
    """Return the number and the width of each shard with rows that no key has any more."""
    return index.execute(
        "SELECT id, width FROM shards WHERE rows > (SELECT count(*) FROM vectors WHERE shard = id)"
    ).fetchall()


def _digest(vector: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(vector, dtype="<f4").tobytes()).digest()
