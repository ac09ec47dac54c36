"""The files of a lab's folder: which there are, and which must not be opened."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from client.findings import Findings, RefusedError, printable

IMAGE_SUFFIXES = {
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
}
"""The file name extensions of the formats that are read."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def within(folder: Path, name: str, base: Path | None = None) -> Path:
    """Return the path of `name`, provided that it stays in `folder`.

    Parameters
    ----------
    folder : Path
        The lab's folder.
    name : str
        As written in ``lab.toml`` or the table.
    base : Path, optional
        Where `name` starts from, if not from `folder`.

    Raises
    ------
    RefusedError
        If `name` is absolute, or leads out of `folder` by ``..`` or by a symbolic link.

    Examples
    --------
    >>> within(Path("/lab"), "images/../a.png").as_posix()
    '/lab/a.png'
    >>> within(Path("/lab"), "../other/a.png")
    Traceback (most recent call last):
    ...
    client.findings.RefusedError: '../other/a.png' leads out of the data folder; copy the file \
into the data folder
    """
    shown = repr(printable(name))
    action = "copy the file into the data folder"
    if "\0" in name:
        raise RefusedError(f"{shown} is no file name", "correct the name")
    if PurePosixPath(name).is_absolute():
        raise RefusedError(f"{shown} is an absolute path", f"{action}, and write its relative name")
    path = Path(os.path.normpath((base or folder) / name))
    if not path.is_relative_to(os.path.normpath(folder)):
        raise RefusedError(f"{shown} leads out of the data folder", action)
    if not leads_inside(folder, path):
        raise RefusedError(f"{shown} is a symbolic link that leaves the data folder", action)
    return path


def leads_inside(folder: Path, path: Path) -> bool:
    """Tell whether `path`, with all symbolic links followed, lies in `folder`."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def regular_file_size(path: Path) -> int:
    """Return the size of a file in bytes, without opening it.

    Raises
    ------
    RefusedError
        If it is missing, or is not a regular file: to open a named pipe would wait for ever.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise RefusedError("no such file", "correct the name, or put the file there") from None
    except OSError as error:
        raise RefusedError(
            f"cannot be read ({error.strerror})", "correct the file or its name"
        ) from None
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no regular file")
        raise RefusedError(f"is {kind}, not a file", "put the file itself there")
    return status.st_size


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file below the images folder, or something else under the name of an image.

    Attributes
    ----------
    name : str
        Relative to the images folder, with ``/``, as the file system gives it.
    file : str
        Relative to the lab's folder, printable.
    path : Path
    is_link : bool
    """

    name: str
    file: str
    path: Path
    is_link: bool

    @property
    def is_image(self) -> bool:
        """Whether the name ends like that of an image."""
        return PurePosixPath(self.name).suffix.lower() in IMAGE_SUFFIXES


def list_entries(images: Path, lab: Path) -> list[Entry]:
    """Return what lies below `images`, sorted by name; hidden files are left out.

    Symbolic links to folders are not followed.

    Raises
    ------
    RefusedError
        If a folder cannot be read.
    """
    below = images.relative_to(lab).as_posix()
    start = "" if below == "." else f"{below}/"
    entries: list[Entry] = []
    # a list of folders, since deep ones would exhaust the stack
    folders = [(images, "")]
    while folders:
        folder, prefix = folders.pop()
        try:
            for entry, is_folder in _look(folder, prefix, start):
                if is_folder:
                    folders.append((entry.path, f"{entry.name}/"))
                else:
                    entries.append(entry)
        except OSError as error:
            raise RefusedError(
                f"the folder {printable(start + prefix)!r} cannot be read ({error.strerror})",
                "allow this user to read it, or move it out of the images",
            ) from None
    return sorted(entries, key=lambda entry: entry.name)


def _look(folder: Path, prefix: str, start: str) -> Iterator[tuple[Entry, bool]]:
    """Return what lies in one folder, and whether it is a folder to look into."""
    with os.scandir(folder) as items:
        for item in items:
            if item.name.startswith("."):
                continue
            entry = Entry(
                name=prefix + item.name,
                file=printable(start + prefix + item.name),
                path=folder / item.name,
                is_link=item.is_symlink(),
            )
            yield entry, item.is_dir(follow_symlinks=False) and not entry.is_image


def check_names(entries: Sequence[Entry], findings: Findings) -> None:
    """Refuse names that another computer would garble or take for one another."""
    seen: dict[str, str] = {}
    for entry in entries:
        shown = printable(entry.name)
        if shown != entry.name:
            findings.stop(
                entry.file,
                "the name has control characters or bytes that are not UTF-8",
                "rename the file, for example to letters, digits, - and _",
            )
        other = seen.setdefault(name_key(entry.name), entry.name)
        if other != entry.name:
            findings.stop(
                entry.file,
                f"the name differs from {_distinct(other, shown)} only by case or Unicode form",
                "rename one of the two files",
            )


def name_key(name: str) -> str:
    r"""Return what two names share that differ only by case or Unicode form.

    Examples
    --------
    >>> name_key("Caf\u00e9.PNG") == name_key("cafe\u0301.png")
    True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _distinct(name: str, other: str) -> str:
    """`name` in quotes, with its characters spelled out where it would look like `other`."""
    same_look = unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", other)
    return ascii(name) if same_look else repr(printable(name))
