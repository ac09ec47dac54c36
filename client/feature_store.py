"""Feature vectors kept on the lab's own disk, by the content that they follow from.

A key is the SHA-256 of everything that a vector depends on, so that a changed image, scale,
backbone or engine is a miss, never a mistake. Vectors of one length lie in shards, append-only
``.npy`` files; an SQLite index says which row of which shard a key has, and the row's SHA-256.

What the index names is whole: rows are written and flushed to disk first, and count from the
moment that the index is committed. Bytes beyond that are overwritten by the next writer. The
index's write lock keeps two processes apart.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import platformdirs

from client import feature_index, shards
from client.database import VersionError, outdated_of, reading, transaction
from client.feature_index import SCHEMA, Place, today
from common.errors import StateError

log = logging.getLogger(__name__)

SHARD_BYTES = 64 * 2**20
"""A shard that has reached this size is left as it is, and another one begun."""


def default_folder() -> Path:
    """Return ``$CROSSPLY_CACHE``, or crossply's place in the user's own cache folder."""
    chosen = os.environ.get("CROSSPLY_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("crossply")) / "features"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a store holds: vectors, bytes on disk, and the day of the least recent use."""

    num_vectors: int
    num_bytes: int
    oldest_use: date | None


class FeatureStore:
    """Vectors on disk under keys of hexadecimal digits.

    Several threads and several processes may use one folder at once. A folder that cannot be
    read or written to is said once, and costs only time.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = FeatureStore(Path(folder))
    ...     store.put({"ab12": np.ones(2, dtype=np.float32)})
    ...     store.get(["ab12", "cd34"])
    {'ab12': array([1., 1.], dtype=float32)}
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._may_write = True

    def get(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the vectors that are kept and whole, by key.

        A damaged one is forgotten with a warning, so that it is made again.
        """
        if not self._index.exists():
            return {}
        try:
            with reading(self._index, SCHEMA) as index:
                places = feature_index.find(index, keys)
        except sqlite3.Error as error:
            log.warning("features kept in %s cannot be read: %s", self.folder, error)
            return {}
        by_shard: dict[tuple[int, int], list[Place]] = defaultdict(list)
        for place in places:
            by_shard[place.shard, place.width].append(place)
        found: dict[str, np.ndarray] = {}
        for (shard, width), of_shard in by_shard.items():
            found |= self._read(shard, width, of_shard)
        damaged = [place for place in places if place.key not in found]
        if damaged:
            log.warning("%d kept feature vectors are damaged and are made again", len(damaged))
        self._note(damaged, [place for place in places if place.used != today().isoformat()])
        return found

    def put(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep vectors: all of them, or, if that fails, none.

        Parameters
        ----------
        vectors : mapping of str to ndarray of shape (length,), float32
        """
        if not self._may_write or not vectors:
            return
        by_width: dict[int, list[str]] = defaultdict(list)
        for key, vector in vectors.items():
            by_width[len(vector)].append(key)
        try:
            with transaction(self._index, SCHEMA) as index:
                for keys in by_width.values():
                    known = {place.key for place in feature_index.find(index, keys)}
                    self._append(index, {k: vectors[k] for k in keys if k not in known})
        except (OSError, sqlite3.Error) as error:
            self._may_write = False
            log.warning("features are not kept in %s: %s", self.folder, error)

    def summary(self) -> Summary:
        """Count what is kept.

        Raises
        ------
        StateError
            If the folder cannot be used.
        """
        with self._said(), transaction(self._index, SCHEMA) as index:
            count, oldest = index.execute("SELECT count(*), min(used) FROM vectors").fetchone()
        sizes = [path.stat().st_size for path in self.folder.iterdir() if path.is_file()]
        return Summary(
            num_vectors=count,
            num_bytes=sum(sizes),
            oldest_use=None if oldest is None else date.fromisoformat(oldest),
        )

    def prune(self, unused_for: timedelta) -> None:
        """Forget vectors that were not used for some time, and give their room on disk back.

        Raises
        ------
        StateError
            If the folder cannot be used; then nothing is lost.
        """
        with self._said():
            with transaction(self._index, SCHEMA) as index:
                limit = _before_today(unused_for).isoformat()
                index.execute("DELETE FROM vectors WHERE used < ?", (limit,))
                self._unlink_unknown(index)
                left = [
                    self._rewrite(index, *shard)
                    for shard in feature_index.shards_with_dead_rows(index)
                ]
            # only now, since until the commit the index named them
            for path in (*left, outdated_of(self._index)):
                path.unlink(missing_ok=True)

    @property
    def _index(self) -> Path:
        return self.folder / "index.sqlite"

    def _shard(self, shard: int, width: int) -> Path:
        return self.folder / f"{shard:06}-{width}.npy"

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            is_newer = isinstance(error, VersionError)
            remedy = "update crossply" if is_newer else "allow this user to write there"
            raise StateError(
                f"{self.folder} cannot be used: {error}; {remedy}, or set CROSSPLY_CACHE to "
                "another folder"
            ) from error

    def _read(self, shard: int, width: int, places: Sequence[Place]) -> dict[str, np.ndarray]:
        rows = np.array([place.row for place in places], dtype=np.int64)
        try:
            vectors = shards.read(self._shard(shard, width), rows, width)
        except (OSError, ValueError):
            return {}
        return {
            place.key: vector
            for place, vector in zip(places, vectors, strict=True)
            if place.holds(vector)
        }

    def _note(self, damaged: Sequence[Place], used: Sequence[Place]) -> None:
        """Forget damaged vectors, unless they were written anew meanwhile; date those used."""
        if not (damaged or used) or not self._may_write:
            return
        try:
            with transaction(self._index, SCHEMA) as index:
                feature_index.forget(index, damaged)
                day = today().isoformat()
                feature_index.date_use(index, [(place.key, day) for place in used])
        except (OSError, sqlite3.Error) as error:
            log.info("the use of kept features is not noted: %s", error)

    def _append(self, index: sqlite3.Connection, vectors: Mapping[str, np.ndarray]) -> None:
        """Write vectors of one length to disk, and only then note where they lie."""
        if not vectors:
            return
        rows = np.stack(list(vectors.values()))
        shard, begin = self._open_shard(index, rows.shape[1])
        shards.append(self._shard(shard, rows.shape[1]), begin, rows)
        feature_index.add(index, shard, begin, vectors)

    def _open_shard(self, index: sqlite3.Connection, width: int) -> tuple[int, int]:
        """Return the shard to append to, and how many rows it has."""
        latest = feature_index.latest_shard(index, width)
        if latest is not None:
            shard, rows = latest
            size = shards.HEADER_BYTES + rows * width * 4
            path = self._shard(shard, width)
            # a file that somebody removed or cut is left alone; its rows are found to be damaged
            if size < SHARD_BYTES and path.is_file() and path.stat().st_size >= size:
                return shard, rows
        return feature_index.new_shard(index, width), 0

    def _rewrite(self, index: sqlite3.Connection, shard: int, width: int) -> Path:
        """Move what is alive in a shard to another one, and return the file to remove."""
        places = feature_index.places_in(index, shard)
        kept = self._read(shard, width, places) if places else {}
        feature_index.forget_shard(index, shard)
        self._append(index, kept)
        feature_index.date_use(index, [(place.key, place.used) for place in places])
        return self._shard(shard, width)

    def _unlink_unknown(self, index: sqlite3.Connection) -> None:
        # while the lock is held nobody else begins a shard, whose file no index names yet
        known = {self._shard(*shard) for shard in feature_index.all_shards(index)}
        for path in self.folder.glob("*.npy"):
            if path not in known:
                path.unlink(missing_ok=True)


def _before_today(span: timedelta) -> date:
    try:
        return today() - span
    except OverflowError:
        return date.min
