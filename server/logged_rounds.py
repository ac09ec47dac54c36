"""A run's state with ``rounds.jsonl`` beside it: a restart neither loses a line nor doubles one."""

from __future__ import annotations

import time
from pathlib import Path

from common.round_log import FILE_NAME, RoundLog, utc_now
from server.checkpoint import Checkpoints
from server.state import Progress


class LoggedCheckpoints:
    """Keeps progress on disk, and a line for each round that counted.

    A line is written before the state that knows its round. One whose state was never written is
    taken back when the run goes on, and the round is computed again to the same bits.

    Parameters
    ----------
    checkpoints : Checkpoints
    folder : Path
        The run's own.
    """

    def __init__(self, checkpoints: Checkpoints, folder: Path) -> None:
        self._checkpoints = checkpoints
        self._log = RoundLog(folder / FILE_NAME)
        self._num_rounds = 0
        self._since = time.monotonic()

    def load(self) -> Progress | None:
        """Return the last progress, and let ``rounds.jsonl`` say what it knows.

        Raises
        ------
        StateError
            If one or the other cannot be read or written.
        """
        progress = self._checkpoints.load()
        history = progress.state.history if progress else ()
        self._log.begin([record.line() for record in history])
        self._num_rounds, self._since = len(history), time.monotonic()
        return progress

    def save(self, progress: Progress) -> None:
        """Write the line of a new round, which took the time since the last call, and the state.

        Raises
        ------
        StateError
            If one or the other cannot be written.
        """
        now, history = time.monotonic(), progress.state.history
        for record in history[self._num_rounds :]:
            self._log.append(record.line(seconds=round(now - self._since, 6), time=utc_now()))
        self._num_rounds, self._since = len(history), now
        self._checkpoints.save(progress)
