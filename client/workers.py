"""Worker processes that read images for a lab, each one image at a time.

A decoder that is given hostile or damaged bytes may crash, run for ever or eat all memory. Here it
does so in a process of its own, which costs that image a finding and the lab a new process. A
process ends when its socket does, so that none outlives the lab, however the lab ends.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from client import frames
from client.findings import RefusedError
from common.errors import WorkerError

TIMEOUT_S = 120.0
"""For one task from sending it to its whole answer: longer than any image within the limits of
size takes, on a busy machine too. A process has as long to start."""

READY = "ready"

Answer = TypeVar("Answer", covariant=True)


class Task(Protocol[Answer]):
    """Something that a worker runs; it and its answer travel between processes."""

    def run(self) -> Answer:
        """Do it."""
        ...


class Worker:
    """One worker, with a process that is started when a task needs one.

    Examples
    --------
    >>> from client.preparation import PrepareTask
    >>> from client.settings import Data
    >>> from common.federation import Imaging
    >>> task = PrepareTask(
    ...     path=Path("no-such.png"),
    ...     sha256="",
    ...     data=Data(table="t.csv", images=".", specimen="id", image="{id}.png"),
    ...     imaging=Imaging(scale="fit"),
    ... )
    >>> with WORKERS.lent() as worker:
    ...     worker.run(task)
    Traceback (most recent call last):
    ...
    client.findings.RefusedError: no such file; correct the name, or put the file there
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._link = socket.socket()
        self._is_ready = False

    def run(self, task: Task[Answer]) -> Answer:
        """Run a task in the process.

        Raises
        ------
        RefusedError
            If the task refuses the image, or ended the process, took too long or needed too much
            memory.
        WorkerError
            If the process cannot be started.
        """
        self.start()
        answer = self._ask(task)
        if isinstance(answer, RefusedError):
            raise answer
        return answer  # type: ignore[no-any-return]

    def start(self) -> None:
        """Start the process, unless it runs; it imports what it needs while others go on."""
        if self._process is not None and self._process.poll() is None:
            return
        self.end()
        self._link, theirs = socket.socketpair()
        self._is_ready = False
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        # workers share the cores among themselves: one thread in each library
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        # -P: what lies in the working folder, such as a lab's own, is data and never code
        command = [sys.executable, "-P", "-m", "client.worker_process", str(theirs.fileno())]
        with theirs:
            try:
                self._process = subprocess.Popen(
                    command,
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    env=os.environ | threads | {"PYTHONPATH": path},
                )
            except OSError as error:
                raise WorkerError(
                    f"a process that reads images cannot be started: {error.strerror}"
                ) from error

    def end(self) -> None:
        """End the process at once, if there is one."""
        self._link.close()
        if self._process is not None:
            self._process.kill()
            # one that hangs in the kernel, on a dead network disk, is left to it
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=5)

    def interrupt(self) -> None:
        """End the process, from any thread: whoever waits for its answer hears that it ended."""
        if (process := self._process) is not None:
            process.kill()

    def _ask(self, task: Task[Any]) -> Any:
        try:
            if not self._is_ready:
                self._is_ready = frames.receive(self._link, _deadline()) == READY
            deadline = _deadline()
            frames.send(self._link, task, deadline)
            return frames.receive(self._link, deadline)
        except TimeoutError as error:
            self.end()
            if not self._is_ready:
                raise WorkerError("a process that reads images does not start") from error
            raise RefusedError(
                f"takes more than {TIMEOUT_S:.0f} s to read", "crop it, or export it again"
            ) from error
        except (EOFError, OSError) as error:
            if not self._is_ready:
                raise WorkerError(
                    "a process that reads images cannot be started; see what it printed above"
                ) from error
            raise RefusedError(
                f"makes the decoder {self._how_it_ended()}",
                "export the image again; it is damaged or hostile",
            ) from error
        except BaseException:
            # the answer on its way must not be taken for that to the next task
            self.end()
            raise

    def _how_it_ended(self) -> str:
        assert self._process is not None, "it has been asked something"
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(timeout=5)
            if code == -signal.SIGKILL:
                return "end (killed: this computer may be out of memory)"
            if code < 0:
                return f"crash ({signal.Signals(-code).name})"
            return f"end with code {code}"
        self.end()
        return "hang"


def _deadline() -> float:
    return time.monotonic() + TIMEOUT_S


class Workers:
    """Workers that are lent out, and kept for the next who needs one until this process ends."""

    def __init__(self) -> None:
        self._idle: list[Worker] = []
        self._lock = threading.Lock()

    @contextmanager
    def lent(self) -> Iterator[Worker]:
        """Lend a worker, whose process runs already, or is starting, for a block."""
        with self._lock:
            worker = self._idle.pop() if self._idle else Worker()
        try:
            worker.start()
            yield worker
        finally:
            with self._lock:
                self._idle.append(worker)

    def start_one(self) -> None:
        """Start a process for whoever needs one soon: it imports while this process does."""
        with self.lent():
            return

    def end(self) -> None:
        """End the processes of all workers that are not lent out."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.end()


WORKERS = Workers()
atexit.register(WORKERS.end)
