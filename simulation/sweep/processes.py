"""A process for each trial: one that crashes, hangs or eats all memory costs its trial alone."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from typing import Protocol

import numpy as np

from common.errors import CrossplyError, shortened

PRELOADED = ["simulation.sweep.trial"]
"""Imported once, in the server that processes are forked from."""


class Task(Protocol):
    """What a process does; it travels there, and its answer back."""

    def run(self) -> list[np.ndarray]:
        """Do it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why there is no answer.

    Attributes
    ----------
    why : str
        A sentence.
    is_lasting : bool
        Whether the same settings would fail again; a process that died tells nothing of them.
    was_killed : bool
        Whether something from outside ended it, so that it is worth another try.
    """

    why: str
    is_lasting: bool
    was_killed: bool = False


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of a task, and how many seconds it took."""

    found: list[np.ndarray] | Failure
    seconds: float


class Running:
    """A task on its way in a process of its own.

    Parameters
    ----------
    task : Task
    seconds : float
        How long it may take.
    """

    def __init__(self, task: Task, seconds: float) -> None:
        self._begun, self._seconds = time.monotonic(), seconds
        self._link, theirs = _context().Pipe()
        self._process = _context().Process(target=_serve, args=(theirs, task), daemon=True)
        self._process.start()
        theirs.close()
        self.answer: Answer | None = None

    def end(self) -> None:
        """End the process at once."""
        self._process.kill()
        # one that hangs in the kernel is left to it
        self._process.join(timeout=5)
        self._link.close()

    @property
    def left(self) -> float:
        """Seconds until it has taken too long."""
        return max(0.0, self._begun + self._seconds - time.monotonic())

    @property
    def link(self) -> Connection:
        """Has something to read when the task is done or its process is gone."""
        return self._link

    def take(self) -> None:
        """Note what came of it, whose link can be read or whose time is over."""
        found: list[np.ndarray] | Failure
        try:
            if self._link.poll():
                found = self._link.recv()
            else:
                found = Failure(why=f"took longer than {self._seconds:g} s", is_lasting=False)
        except (EOFError, OSError):
            self._process.join(timeout=5)
            why = _how_it_ended(self._process.exitcode)
            found = Failure(why=why, is_lasting=False, was_killed=True)
        self.answer = Answer(found=found, seconds=time.monotonic() - self._begun)
        self.end()


def take_finished(running: Sequence[Running]) -> None:
    """Wait until one of some tasks is done, or has taken too long, and note what came of it."""
    unfinished = [one for one in running if one.answer is None]
    ready = wait([one.link for one in unfinished], timeout=min(one.left for one in unfinished))
    for one in unfinished:
        if one.link in ready or one.left == 0:
            one.take()


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    # it lets a terminal's interrupt pass once it runs, and not while it imports; this is started
    # first, since its start unblocks the signal
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _serve(link: Connection, task: Task) -> None:
    # the terminal's interrupt is the sweep's affair, which ends its processes itself
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # what goes wrong in a run is told by the trial that it costs
    logging.disable(logging.CRITICAL)
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    link.send(_answer(task))


def _answer(task: Task) -> list[np.ndarray] | Failure:
    try:
        return task.run()
    except CrossplyError as error:
        return Failure(why=shortened(str(error)), is_lasting=True)
    except MemoryError:
        return Failure(why="needs more memory than there is", is_lasting=False)
    except Exception as error:
        return Failure(why=shortened(f"{type(error).__name__}: {error}"), is_lasting=False)


def _end_with_the_sweep() -> None:
    """End this process when the one that asked for it is gone, in whatever way."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _how_it_ended(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed (this computer may be out of memory)"
    if code is not None and code < 0:
        return f"its process crashed ({signal.Signals(-code).name})"
    return f"its process ended with code {code}"
