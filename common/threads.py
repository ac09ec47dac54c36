"""One thread inside each operation: the same bits on every machine, and no fight for cores."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

import torch
from threadpoolctl import ThreadpoolController

_inside: ContextVar[bool] = ContextVar("inside", default=False)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch, BLAS and OpenMP use one thread each, and give back what was allowed before.

    How a sum is split among threads decides its last bits, and a head is too small to split.
    Inside itself it does nothing.

    Examples
    --------
    >>> with one_thread():
    ...     torch.get_num_threads()
    1
    """
    if _inside.get():
        yield
        return
    before, entered = torch.get_num_threads(), _inside.set(True)
    torch.set_num_threads(1)
    try:
        with _libraries(len(sys.modules)).limit(limits=1):
            yield
    finally:
        torch.set_num_threads(before)
        _inside.reset(entered)


@lru_cache(maxsize=1)
def _libraries(num_modules: int) -> ThreadpoolController:
    """Look for libraries that have threads, again when a module that may bring one was imported.

    Looking takes milliseconds, which is most of answering a small task.
    """
    return ThreadpoolController()
