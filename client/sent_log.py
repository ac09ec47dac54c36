"""What has left a lab: one line a message, each bound to the line before it by a hash.

A line is written to the disk before its message leaves. The chain shows that no line in it was
changed, removed or put elsewhere. That lines are missing at its end it cannot show: whoever wants
to know keeps a copy of the last hash elsewhere and looks for it with ``--expect``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from common.errors import PolicyError, StateError
from common.link_pb2 import Content, Reply

log = logging.getLogger(__name__)

BEGINNING = "0" * 64


class SentLog:
    """A lab's log of what it sent.

    Parameters
    ----------
    path : Path
        Made if it is missing. A last line that was cut by a crash is put aside, beside it.

    Raises
    ------
    StateError
        If it cannot be read, or a line in it has been altered.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            _put_aside_a_cut_line(path)
            self._entries = verified(path)
        except OSError as error:
            raise StateError(f"{path} cannot be used: {error.strerror}") from error

    @property
    def last_hash(self) -> str:
        """The hash that the next line is bound to."""
        return str(self._entries[-1]["hash"]) if self._entries else BEGINNING

    def append(self, message_type: str, reply: Reply, asked: str) -> None:
        """Write down a message that is about to leave.

        Parameters
        ----------
        message_type : str
        reply : Reply
        asked : str
            SHA-256 of what was asked, as the lab itself takes it.

        Raises
        ------
        PolicyError
            If it cannot be written down: then it may not leave.
        """
        content = reply.SerializeToString()
        entry: dict[str, Any] = {
            "seq": len(self._entries) + 1,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "message_id": reply.message_id,
            "type": message_type,
            "asked": asked,
            "answer": reply.error or "content",
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "summary": summary(reply.content),
            "previous": self.last_hash,
        }
        entry["hash"] = _hash(entry)
        try:
            _append_line(self._path, json.dumps(entry))
        except OSError as error:
            raise PolicyError(
                f"{self._path} cannot be written ({error.strerror}); nothing leaves that is not "
                "written down: make room"
            ) from error
        self._entries.append(entry)

    def __len__(self) -> int:
        return len(self._entries)

    def asked(self, message_type: str, since: datetime) -> set[str]:
        """Return what has been asked and answered since a time, of one type of task.

        By what was asked and not by a task's id, which the coordinator may give twice. An error is
        an answer too: that something failed tells of the data as well. What the policy kept back
        follows from the policy, and is none.
        """
        recent = takewhile(
            lambda entry: datetime.fromisoformat(entry["time"]) >= since, reversed(self._entries)
        )
        told = (entry for entry in recent if entry["answer"] != PolicyError.code)
        return {entry["asked"] for entry in told if entry["type"] == message_type}


def verified(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a log.

    Raises
    ------
    StateError
        Names the first line that was altered, removed or moved.
    """
    entries: list[dict[str, Any]] = []
    previous = BEGINNING
    # a byte that is none of ours spoils a hash, and is found by its line
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            whole = entry["hash"] == _hash({k: v for k, v in entry.items() if k != "hash"})
            in_place = entry["previous"] == previous and entry["seq"] == number
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(f"{path}, line {number}: it is no entry of this log") from error
        if not whole:
            raise StateError(f"{path}, line {number}: the entry has been altered")
        if not in_place:
            raise StateError(f"{path}, line {number}: an entry before it was removed or moved")
        entries.append(entry)
        previous = entry["hash"]
    return entries


def summary(content: Content) -> list[str]:
    """Return what a message holds, without its weights: names, shapes, and single numbers.

    Examples
    --------
    >>> from common.link_pb2 import Record, Value, Values
    >>> values = Values(values=[Value(name="num-examples", integer=50)])
    >>> summary(Content(records=[Record(key="metrics", metrics=values)]))
    ['metrics: num-examples = 50']
    """
    lines = []
    for record in content.records:
        tensors = [f"{t.name}{list(t.shape)}" for t in record.arrays.tensors]
        values = [
            f"{value.name} = {_shown(value)}"
            for value in (*record.metrics.values, *record.settings.values)
        ]
        lines.append(f"{record.key}: {', '.join(tensors + values)}")
    return lines


def _shown(value: Any) -> str:
    kind = value.WhichOneof("kind")
    if kind == "texts":
        return ", ".join(value.texts.texts)
    found = getattr(value, kind) if kind else None
    return f"{found:.6g}" if kind == "number" else str(found)


def _hash(entry: dict[str, Any]) -> str:
    canonical = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _append_line(path: Path, line: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        before = os.fstat(descriptor).st_size
        content = (line + "\n").encode()
        try:
            if os.write(descriptor, content) != len(content):
                raise OSError(28, "No space left on device")
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, before)
            raise
    finally:
        os.close(descriptor)


def _put_aside_a_cut_line(path: Path) -> None:
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        log.warning("%s ends in a cut line, of a message that did not leave; put aside", path.name)
        path.with_suffix(".cut").write_bytes(content[len(whole) :])
        os.truncate(path, len(whole))
