"""Python's searches for unreachable cycles, which take a good part of a command's start and end."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

_USUAL = gc.get_threshold()


def search_less() -> None:
    """Search for cycles after fifty thousand new objects, not 700, and not at the end at all.

    Importing torch makes objects by the hundred thousand, all of which stay; by default they are
    searched again and again meanwhile, and once more when the process ends. What exchanges many
    messages does so under `unsearched`: a Flower record is a cycle once its `array_records` were
    asked for, and only a search frees its arrays.

    Examples
    --------
    >>> before = gc.get_threshold()
    >>> search_less()
    >>> gc.get_threshold()
    (50000, 10, 10)
    >>> gc.set_threshold(*before)
    >>> _ = atexit.unregister(gc.freeze)
    """
    gc.set_threshold(50_000, 10, 10)
    atexit.register(gc.freeze)


@contextmanager
def unsearched() -> Iterator[None]:
    """Leave what is there now out of Python's searches, and search the rest as often as usual.

    A round of a thousand labs makes so many messages that everything is searched several times;
    what torch and Flower brought, no search ever finds useless.

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
