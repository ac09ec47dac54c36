"""SIGTERM and SIGINT as an exception that nothing swallows, put off where work must not be cut."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(BaseException):
    """The process was told to stop; not an `Exception`, so that no handler of errors keeps it."""


class StopSignals:
    """Turns SIGTERM and SIGINT into `Stopped`, raised in the main thread, while it is entered.

    Examples
    --------
    >>> with StopSignals() as signals:
    ...     try:
    ...         with signals.held():
    ...             signal.raise_signal(signal.SIGTERM)
    ...             print("this is still done")
    ...     except Stopped:
    ...         print("then it stops")
    this is still done
    then it stops
    """

    def __init__(self) -> None:
        self._held = 0
        self._pending = False

    def __enter__(self) -> StopSignals:
        self._before = {
            number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Put off stopping until the block is done."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if self._pending and not self._held:
            raise Stopped

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._pending = True
        if not self._held:
            raise Stopped
