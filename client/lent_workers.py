"""Workers for a piece of work on several threads, which can be left at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from client.workers import WORKERS, Worker

INTERRUPT_EVERY_S = 0.2
"""A worker may be lent, or start its process anew, just after it was to be ended."""


class LeftError(Exception):
    """Whoever asked for the work has left; nobody hears it, and it ends a thread's work."""


class LentWorkers:
    """The workers that one piece of work has lent, and whether whoever asked for it has left."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._lent: set[Worker] = set()
        self._is_left = False

    @contextmanager
    def worker(self) -> Iterator[Worker]:
        """Lend a worker for a block; one that was interrupted goes back without its process."""
        with WORKERS.lent() as worker:
            with self._changed:
                self._lent.add(worker)
            try:
                yield worker
            finally:
                with self._changed:
                    self._lent.remove(worker)
                    self._changed.notify_all()
                if self._is_left:
                    worker.end()

    def go_on(self) -> None:
        """Raise LeftError if whoever asked for the work has left."""
        if self._is_left:
            raise LeftError

    def leave(self) -> None:
        """Interrupt the workers until none is lent any more."""
        self._is_left = True
        with self._changed:
            while self._lent:
                for worker in self._lent:
                    worker.interrupt()
                self._changed.wait(INTERRUPT_EVERY_S)
