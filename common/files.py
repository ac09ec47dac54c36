"""Writing files so that a reader sees all of the new content or all of the old."""

from __future__ import annotations

import fcntl
import os
import pwd
import tempfile
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
def held_alone(path: Path, otherwise: str) -> Iterator[None]:
    """Hold a lock while the block runs, or say what keeps this process out.

    Raises
    ------
    StateError
        With the sentence `otherwise`, if another process holds it.
    """
    with ExitStack() as held:
        try:
            held.enter_context(locked(path))
        except BlockingIOError as error:
            raise StateError(otherwise) from error
        yield


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
