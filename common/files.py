"""Writing files so that a reader sees all of the new content or all of the old."""

from __future__ import annotations

import fcntl
import os
import pwd
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from common.errors import StateError


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file through a temporary one beside it, flushed to disk and then renamed.

    Raises
    ------
    OSError
        If the folder cannot be written to or the disk is full; the old file is left whole.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(Path(folder) / "note.txt", "kept")
    ...     [(path.name, path.read_text()) for path in Path(folder).iterdir()]
    [('note.txt', 'kept')]
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def require_owner(folder: Path) -> None:
    """Refuse to work in somebody else's state folder, whose owner could not read what is written.

    Root may read everything, and leaves files that a service under its own user cannot.

    Raises
    ------
    StateError
        Names the owner.
    """
    owner = folder.stat().st_uid
    if owner == os.geteuid():
        return
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = str(owner)
    raise StateError(f"{folder} belongs to {name}; run this as that user (sudo -u {name} ...)")


@contextmanager
def held_alone(path: Path, otherwise: str, *, patience: float = 0.0) -> Iterator[None]:
    """Hold a lock while the block runs, or say what keeps this process out.

    Parameters
    ----------
    path : Path
    otherwise : str
    patience : float
        Seconds for which it is tried again: whoever only looks (`is_held`) holds it for a moment.

    Raises
    ------
    StateError
        With the sentence `otherwise`, if another process holds it.
    """
    until = time.monotonic() + patience
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(locked(path))
                break
            except BlockingIOError as error:
                if time.monotonic() >= until:
                    raise StateError(otherwise) from error
            time.sleep(0.01)
        yield


def is_held(path: Path) -> bool:
    """Return whether a process holds a lock; others that look at the same time do not count.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder) / "lock"):
    ...     is_held(Path(folder) / "lock"), is_held(Path(folder) / "another")
    (True, False)
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes out while the block runs; the lock ends with the process.

    Parameters
    ----------
    path : Path
        A file for this purpose alone; made if it is missing.
    wait : bool
        Wait for another process that holds it; held for short changes only.

    Raises
    ------
    BlockingIOError
        If another process holds it, unless it is waited for.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder) / "lock"):
    ...     with locked(Path(folder) / "lock"):
    ...         pass
    Traceback (most recent call last):
    ...
    BlockingIOError: [Errno 11] Resource temporarily unavailable
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
