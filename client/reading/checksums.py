"""The optional list of checksums of a lab's folder, as ``sha256sum`` writes it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from client.findings import Findings, RefusedError, printable
from client.reading.folder import regular_file_size, within

_LINE = re.compile(r"(\\?)([0-9a-fA-F]{64}) [ *](.+)")
_ESCAPES = {r"\\": "\\", r"\n": "\n", r"\r": "\r"}


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_checksums(folder: Path, name: str, findings: Findings) -> dict[str, str]:
    """Read a list of checksums.

    Parameters
    ----------
    folder : Path
        The lab's folder; the names in the list are relative to the list.
    name : str
        Of the list, relative to `folder`.
    findings : Findings
        Gains a stop if the list cannot be read, and for each line that is none.

    Returns
    -------
    dict of str to str
        SHA-256 by name relative to `folder`.
    """
    try:
        path = within(folder, name)
        regular_file_size(path)
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except RefusedError as why:
        findings.refuse(printable(name), why, column="data.checksums")
        return {}
    except OSError as error:
        findings.stop(
            printable(name),
            f"cannot be read ({error.strerror})",
            "correct the file, or remove checksums",
            column="data.checksums",
        )
        return {}
    parent = path.parent.relative_to(folder)
    result = {}
    for line, content in enumerate(text.splitlines(), start=1):
        match = _LINE.fullmatch(content)
        if match is None:
            findings.stop(
                printable(name),
                "the line is not a SHA-256 and a file name",
                "write the list with: sha256sum FILE... > SHA256SUMS",
                row=line,
            )
            continue
        file = match[3]
        if match[1]:
            file = re.sub(r"\\[\\nr]", lambda escape: _ESCAPES[escape[0]], file)
        result[(parent / file).as_posix()] = match[2].lower()
    return result


def check_checksums(
    listed: Mapping[str, str], actual: Mapping[str, str], name: str, findings: Findings
) -> None:
    """Compare the files that are used with the list.

    Parameters
    ----------
    listed, actual : dict of str to str
        SHA-256 by name relative to the lab's folder.
    name : str
        Of the list.
    findings : Findings
        Gains a stop for each file that was altered, and a fix if files are not listed.
    """
    for file, digest in actual.items():
        if listed.get(file, digest) != digest:
            findings.stop(
                printable(file),
                f"differs from its checksum in {printable(name)}",
                "restore the file, or renew the list if it was changed on purpose",
            )
    unlisted = [printable(file) for file in actual if file not in listed]
    if unlisted:
        findings.fix(
            printable(name),
            f"{len(unlisted)} file(s) are not listed, such as {unlisted[0]}",
            "renew the list with sha256sum",
        )
