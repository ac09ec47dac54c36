"""A folder of files with their SHA-256 beside them: written whole or not at all, checked when read.

``SHA256SUMS`` is as ``sha256sum`` writes it, so that anybody can check a folder without crossply:
``sha256sum --check SHA256SUMS``.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from common.errors import StateError
from common.files import write_atomically

SUMS = "SHA256SUMS"

MOST_BYTES = 2**31
"""Of a folder's files together: no message could have brought a lab a larger model."""

SUMS_BYTES = 2**20
"""Of `SUMS` at most: ten thousand files."""

_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._-]*)")
_AGAIN = "copy the whole folder again from where it was released"


def sums_of(files: Mapping[str, bytes]) -> bytes:
    r"""Return the content of ``SHA256SUMS``, sorted by name.

    Examples
    --------
    >>> sums_of({"note.txt": b"kept"})[-11:]
    b'  note.txt\n'
    """
    lines = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)]
    return "".join(lines).encode()


def write_sealed(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files and their checksums to a folder, through a temporary one beside it.

    A folder that holds the same already is left as it is; another is replaced.

    Parameters
    ----------
    folder : Path
        Its parent exists.
    files : mapping of str to bytes
        Contents by plain name.

    Raises
    ------
    StateError
        If it cannot be written, for want of space or rights.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     write_sealed(Path(parent) / "model", {"note.txt": b"kept"})
    ...     read_sealed(Path(parent) / "model")
    {'note.txt': b'kept'}
    """
    sealed = {**files, SUMS: sums_of(files)}
    try:
        if _holds(folder, sealed):
            return
        # of a process that was killed while it wrote; whoever writes here does so alone
        for left in folder.parent.glob(f".{folder.name}.writing-*"):
            shutil.rmtree(left)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.writing-"))
        try:
            _replace(folder, sealed, temporary)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise StateError(f"{folder} cannot be written: {error.strerror}; make room") from error


def read_sealed(folder: Path) -> dict[str, bytes]:
    """Read the files that ``SHA256SUMS`` lists; others that lie there are not looked at.

    Raises
    ------
    StateError
        Names the file that is missing, too large, no plain file, or differs from its checksum.
    """
    try:
        lines = _content(folder / SUMS, SUMS_BYTES).decode("ascii", "replace").splitlines()
    except OSError as error:
        raise StateError(
            f"{folder} is no released model: its {SUMS} cannot be read ({error.strerror}); name "
            "the folder that a run has left, such as STATE/model"
        ) from error
    files: dict[str, bytes] = {}
    room = MOST_BYTES
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None or match[2] in files:
            raise StateError(f"{folder / SUMS} was altered or damaged; {_AGAIN}")
        name = match[2]
        try:
            content = _content(folder / name, room)
        except OSError as error:
            raise StateError(f"{folder / name}: {error.strerror}; {_AGAIN}") from error
        if hashlib.sha256(content).hexdigest() != match[1]:
            raise StateError(f"{folder / name} differs from its checksum in {SUMS}; {_AGAIN}")
        files[name] = content
        room -= len(content)
    return files


def _content(path: Path, most: int) -> bytes:
    """Read a file that somebody else wrote: a pipe would never end, nor would a device."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise StateError(f"{path} is a link or no plain file; {_AGAIN}")
    if found.st_size > most:
        raise StateError(f"{path} is larger than a released model's can be; {_AGAIN}")
    return path.read_bytes()


def _holds(folder: Path, sealed: Mapping[str, bytes]) -> bool:
    if not (folder / SUMS).exists() or {path.name for path in folder.iterdir()} != set(sealed):
        return False
    return all((folder / name).read_bytes() == content for name, content in sealed.items())


def _replace(folder: Path, sealed: Mapping[str, bytes], temporary: Path) -> None:
    made = temporary / "new"
    made.mkdir(mode=0o700)
    for name, content in sealed.items():
        write_atomically(made / name, content)
    if folder.exists():
        # between the two renames there is none: a run that is stopped there writes it again
        folder.rename(temporary / "old")
    made.rename(folder)
    descriptor = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
