"""How often Python searches for cycles: rarely in a command, as usual where messages are many."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from common.garbage import search_less, unsearched


def test_an_exchange_is_searched_as_usual_and_a_command_rarely_again_after_it() -> None:
    usual = gc.get_threshold()
    search_less()
    rarely = gc.get_threshold()
    with pytest.raises(ValueError, match="a run"), unsearched():
        assert gc.get_threshold() == usual
        assert gc.get_freeze_count() > 0
        raise ValueError("a run")
    assert gc.get_threshold() == rarely > usual
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize(("where", "all_stay"), [("unsearched()", False), ("nullcontext()", True)])
def test_arrays_of_a_record_come_free_in_an_exchange(where: str, all_stay: bool) -> None:
    """Flower's records become cycles: without searches each round's heads would stay."""
    code = f"""
import weakref
from contextlib import nullcontext
import numpy as np
from flwr.app import RecordDict
from common.garbage import search_less, unsearched
from common.records import array_record

search_less()
with {where}:
    watched = []
    for number in range(300):
        record = RecordDict({{"head": array_record({{"bias": np.zeros(4, np.float32)}})}})
        # as Flower's strategies ask
        assert set(record.array_records) == {{"head"}}
        watched.append(weakref.ref(record["head"]["bias"]))
    del record
    print(sum(one() is not None for one in watched))
"""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=root, check=True, timeout=120
    )
    left = int(done.stdout)
    assert left == 300 if all_stay else left < 200
