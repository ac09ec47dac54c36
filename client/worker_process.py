"""The process behind a worker: answers the tasks that come through its socket.

python -m client.worker_process NUMBER_OF_THE_SOCKET
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import cv2

# tasks come from these: imported before the first one, while the lab does other things
import client.preparation
import client.reading.image_files  # noqa: F401
from client import frames
from client.findings import RefusedError
from client.workers import READY, Task
from common.errors import LabDataError

MEMORY_BYTES = 8 * 2**30
"""Address space of the process: 100 million pixels, and what is computed on them."""


WATCH_S = 1.0


def serve(link: socket.socket) -> None:
    """Answer tasks until the other side closes the socket."""
    frames.send(link, READY)
    with suppress(EOFError, OSError):
        while True:
            frames.send(link, _answer(frames.receive(link)))


def _answer(task: Task[Any]) -> Any:
    try:
        return task.run()
    except RefusedError as error:
        return error
    except LabDataError as error:
        return RefusedError(*str(error).partition("; ")[::2])
    except MemoryError:
        return RefusedError(
            f"needs more than {MEMORY_BYTES / 2**30:.0f} GiB of memory",
            "crop it, or cut it into several micrographs",
        )
    except Exception as error:
        # whatever is odd about one image must not end the run
        return RefusedError(f"cannot be read ({type(error).__name__}: {error})", "report this")


def _end_with(parent: int) -> None:
    """End this process soon after its parent, also where it is busy and reads no socket."""
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    os._exit(1)


def main() -> None:
    """Serve on the socket whose number is the only argument."""
    # the terminal's interrupt is the lab's affair; a core dump would hold private pixels
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY_BYTES if most == resource.RLIM_INFINITY else min(MEMORY_BYTES, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    cv2.setNumThreads(1)
    with socket.socket(fileno=int(sys.argv[1])) as link:
        serve(link)


if __name__ == "__main__":
    main()
