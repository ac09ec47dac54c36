"""How often Python searches for cycles: rarely in a command, as usual where messages are many."""

from __future__ import annotations

import atexit
import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.garbage import search_less, unsearched

USUAL = (700, 10, 10)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    atexit.unregister(gc.freeze)


def test_an_exchange_is_searched_as_usual_and_a_command_rarely_again_after_it() -> None:
    search_less()
    rarely = gc.get_threshold()
    with pytest.raises(ValueError, match="a run"), unsearched():
        assert gc.get_threshold() == USUAL
        assert gc.get_freeze_count() > 0
        raise ValueError("a run")
    assert gc.get_threshold() == rarely > USUAL
    assert gc.get_freeze_count() == 0


def test_arrays_of_a_record_come_free_in_an_exchange() -> None:
    """Flower's records are cycles: without searches each round's heads would stay."""
    code = """
import gc, weakref
import numpy as np
from flwr.app import RecordDict
from common.garbage import search_less, unsearched
from common.records import array_record

class Head(np.ndarray):
    '''An array that can be watched.'''

search_less()
with unsearched():
    watched = []
    for number in range(300):
        head = np.zeros(4, np.float32).view(Head)
        watched.append(weakref.ref(head))
        record = RecordDict({"head": array_record({"bias": head})})
        del head, record
    print(sum(one() is not None for one in watched))
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True
    )
    assert int(done.stdout) < 200
