"""Tile vectors kept on the lab's own disk, by the content that they follow from.

The key is the SHA-256 of everything a vector depends on, so that a changed image, scale,
backbone or engine is a miss, never a mistake. An entry carries the SHA-256 of its own bytes: a
flipped bit or a cut file is found, and the entry is made again.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from pathlib import Path

import numpy as np
import platformdirs

from common.files import write_atomically

log = logging.getLogger(__name__)

DIGEST_BYTES = hashlib.sha256().digest_size


def default_folder() -> Path:
    """Return ``$CROSSPLY_CACHE``, or crossply's place in the user's own cache folder."""
    chosen = os.environ.get("CROSSPLY_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("crossply")) / "features"


class FeatureCache:
    """Arrays on disk under keys of hexadecimal digits.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = FeatureCache(Path(folder))
    ...     cache.put("ab12", np.ones((1, 2), dtype=np.float32))
    ...     cache.get("ab12"), cache.get("cd34")
    (array([[1., 1.]], dtype=float32), None)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._may_write = True

    def get(self, key: str) -> np.ndarray | None:
        """Return the array under `key`, or None if there is none that is whole."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        digest, body = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            log.warning("cached features %s are damaged and are made again", path.name)
            return None
        return np.asarray(np.load(io.BytesIO(body), allow_pickle=False))

    def put(self, key: str, array: np.ndarray) -> None:
        """Write an array so that a reader sees all of it or nothing.

        A folder that cannot be written to, or a full disk, is said once and costs only time.
        """
        if not self._may_write:
            return
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        body = buffer.getvalue()
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(path, hashlib.sha256(body).digest() + body)
        except OSError as error:
            self._may_write = False
            log.warning("features are not cached in %s: %s", self.folder, error.strerror)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.features"
