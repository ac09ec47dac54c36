"""``rounds.jsonl``: what happened in each round that counted, one line of JSON for each.

A line is written whole, before the run goes on. A run that goes on after it was
stopped begins by making the file say what the run's own state says: a line that was cut is gone,
so is one of a round that is computed again, and none stands twice.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.errors import StateError
from common.files import write_atomically

FILE_NAME = "rounds.jsonl"

TIMES = ("seconds", "time")
"""What differs between two runs of the same bits."""


@dataclass(frozen=True, kw_only=True)
class RoundLine:
    """One round that counted.

    Attributes
    ----------
    fold : int or None
        Of a simulation; None at a coordinator.
    server_round : int
    train_loss : float or None
        None where there is none.
    labs : tuple of str
        Those that took part.
    failed, quarantined : dict of str to str
        Labs that gave no update, with a code, and labs whose update broke the schema, with the
        coordinator's own words. No text that a lab wrote.
    out : tuple of str
        Labs that were out before.
    seconds : float or None
        Wall-clock time of the round; None where the process that knew it is gone.
    time : str or None
        When it counted, in UTC.
    """

    fold: int | None
    server_round: int
    train_loss: float | None
    labs: tuple[str, ...]
    failed: dict[str, str]
    quarantined: dict[str, str]
    out: tuple[str, ...]
    seconds: float | None = None
    time: str | None = None

    @property
    def share(self) -> float:
        """The share of the labs, those that are out included, that took part.

        Examples
        --------
        >>> RoundLine(fold=None, server_round=1, train_loss=0.5, labs=("a", "b"),
        ...           failed={"c": "not connected"}, quarantined={}, out=("d",)).share
        0.5
        """
        return len(self.labs) / len({*self.labs, *self.failed, *self.quarantined, *self.out})

    def as_json(self) -> str:
        """Return the line, without its end."""
        return json.dumps(asdict(self), allow_nan=False)


class RoundLog:
    """The file of one run.

    Parameters
    ----------
    path : Path
        Its folder need not be there yet.
    synced_every : float
        Seconds that may pass until a line is on the disk and not with the system alone, which a
        loss of power takes it from: nothing goes on from a simulation, whose rounds are short.
    """

    def __init__(self, path: Path, synced_every: float = 0.0) -> None:
        self._path = path
        self._synced_every = synced_every
        self._synced = 0.0

    def begin(self, known: Sequence[RoundLine] = ()) -> None:
        """Let the file hold one line for each of these rounds, and nothing else.

        Parameters
        ----------
        known : sequence of RoundLine
            What the run's state knows, without times. Lines that say the same stay, with the times
            that they have.

        Raises
        ------
        StateError
            If the file cannot be read or written.
        """
        try:
            there = self._path.read_bytes() if self._path.exists() else None
            written = _by_round(there or b"")
            lines = [_kept(line, written.get((line.fold, line.server_round))) for line in known]
            content = b"".join(line + b"\n" for line in lines)
            if content != there:
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                write_atomically(self._path, content)
        except OSError as error:
            raise self._unwritable(error) from error

    def append(self, line: RoundLine) -> None:
        """Write a line, and see to it that it is on the disk in time.

        Raises
        ------
        StateError
            If it cannot be written; the lines before it stay whole, and no part of it does.
        """
        content = line.as_json().encode() + b"\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                is_due = time.monotonic() - self._synced >= self._synced_every
                _append_whole(descriptor, content, synced=is_due)
                if is_due:
                    self._synced = time.monotonic()
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> StateError:
        return StateError(
            f"{self._path} cannot be written: {error.strerror or error}; make room, and start again"
        )


def utc_now() -> str:
    """Return the time as it stands in a line: UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _append_whole(descriptor: int, content: bytes, *, synced: bool) -> None:
    size = os.fstat(descriptor).st_size
    try:
        written = os.write(descriptor, content)
        while written < len(content):
            written += os.write(descriptor, content[written:])
        if synced:
            os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _by_round(content: bytes) -> dict[tuple[Any, Any], bytes]:
    """Return whole lines by fold and round; of two for one round, the first."""
    found: dict[tuple[Any, Any], bytes] = {}
    for line in content.split(b"\n")[:-1]:
        try:
            read = json.loads(line)
            found.setdefault((read["fold"], read["server_round"]), line)
        except (ValueError, KeyError, TypeError):
            # cut or altered: what the run's state knows is written in its place
            continue
    return found


def _kept(line: RoundLine, written: bytes | None) -> bytes:
    """Return a line as it was written, if it says what is known, or anew."""
    expected = json.loads(line.as_json())
    if written is not None:
        found = json.loads(written)
        times = {key: found.get(key) for key in TIMES}
        if found == expected | times:
            return written
    return line.as_json().encode()
