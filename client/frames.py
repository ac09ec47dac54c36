"""Python objects through a socket between two processes of one lab, arrays without a copy.

Only ever between a process and the worker that it started itself: what is read is unpickled.
"""

from __future__ import annotations

import math
import pickle
import socket
import struct
import time
from typing import Any

_COUNT = struct.Struct("!Q")


def send(link: socket.socket, value: object, deadline: float = math.inf) -> None:
    """Send one object.

    Parameters
    ----------
    link : socket
    value : object
    deadline : float
        Until when, on the clock of `time.monotonic`, all of it has to be taken.

    Raises
    ------
    OSError
        If the other side has gone.
    TimeoutError
        If the deadline passes.
    """
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(content), *(buffer.raw() for buffer in buffers)]
    sizes = [len(parts), *(part.nbytes for part in parts)]
    head = memoryview(b"".join(map(_COUNT.pack, sizes)))
    for part in (head, *parts):
        # a socket's timeout is for the whole of sendall
        link.settimeout(_left(deadline))
        link.sendall(part)


def receive(link: socket.socket, deadline: float = math.inf) -> Any:
    """Receive one object.

    Parameters
    ----------
    link : socket
    deadline : float
        Until when, on the clock of `time.monotonic`, all of it has to be there: what comes byte
        by byte does not put it off.

    Raises
    ------
    EOFError
        If the other side has gone.
    TimeoutError
        If the deadline passes.

    Examples
    --------
    >>> import numpy as np
    >>> here, there = socket.socketpair()
    >>> send(here, {"tiles": np.arange(3)})
    >>> receive(there)
    {'tiles': array([0, 1, 2])}
    >>> here.close(), there.close()
    (None, None)
    """
    (count,) = _COUNT.unpack(_exactly(link, _COUNT.size, deadline))
    sizes = [_COUNT.unpack(_exactly(link, _COUNT.size, deadline))[0] for _ in range(count)]
    content, *buffers = [_exactly(link, size, deadline) for size in sizes]
    return pickle.loads(content, buffers=buffers)


def _exactly(link: socket.socket, size: int, deadline: float) -> bytearray:
    content = bytearray(size)
    rest = memoryview(content)
    while rest:
        link.settimeout(_left(deadline))
        count = link.recv_into(rest)
        if count == 0:
            raise EOFError("the other side has gone")
        rest = rest[count:]
    return content


def _left(deadline: float) -> float | None:
    """Seconds until a deadline, as a socket takes them: None is for ever, and 0 would not wait."""
    if math.isinf(deadline):
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    return left
