"""Python's searches for unreachable cycles, a fifth of the time that torch takes to import."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

_USUAL = gc.get_threshold()


def search_less() -> None:
    """Search for cycles after ten thousand new objects, not 700, and not at the end at all.

    Importing torch makes half a million objects that stay; by default they are searched 400 times
    while it is imported, and once more when the process ends. What exchanges many messages does
    so under `unsearched`: a Flower record is a cycle, and only a search frees its arrays.

    Examples
    --------
    >>> before = gc.get_threshold()
    >>> search_less()
    >>> gc.get_threshold()
    (10000, 10, 10)
    >>> gc.set_threshold(*before)
    >>> _ = atexit.unregister(gc.freeze)
    """
    gc.set_threshold(10_000, 10, 10)
    atexit.register(gc.freeze)


@contextmanager
def unsearched() -> Iterator[None]:
    """Leave what is there now out of Python's searches, and search the rest as often as usual.

    A round of a thousand labs makes so many messages that everything is searched several times;
    torch and Flower brought half a million objects that no search ever finds useless.

    Examples
    --------
    >>> with unsearched():
    ...     gc.get_freeze_count() > 0
    True
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*_USUAL)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
