"""Python objects through a socket between two processes of one lab, arrays without a copy.

Only ever between a process and the worker that it started itself: what is read is unpickled.
"""

from __future__ import annotations

import pickle
import socket
import struct
from typing import Any

_COUNT = struct.Struct("!Q")


def send(link: socket.socket, value: object) -> None:
    """Send one object.

    Raises
    ------
    OSError
        If the other side has gone.
    """
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(content), *(buffer.raw() for buffer in buffers)]
    sizes = [len(parts), *(part.nbytes for part in parts)]
    link.sendall(b"".join(map(_COUNT.pack, sizes)))
    for part in parts:
        link.sendall(part)


def receive(link: socket.socket) -> Any:
    """Receive one object.

    Raises
    ------
    EOFError
        If the other side has gone.
    TimeoutError
        If the socket has a timeout, and nothing comes for so long.

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
    (count,) = _COUNT.unpack(_exactly(link, _COUNT.size))
    sizes = [_COUNT.unpack(_exactly(link, _COUNT.size))[0] for _ in range(count)]
    content, *buffers = [_exactly(link, size) for size in sizes]
    return pickle.loads(content, buffers=buffers)


def _exactly(link: socket.socket, size: int) -> bytearray:
    content = bytearray(size)
    rest = memoryview(content)
    while rest:
        count = link.recv_into(rest)
        if count == 0:
            raise EOFError("the other side has gone")
        rest = rest[count:]
    return content
