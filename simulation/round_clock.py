"""How long each round of a simulation takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

from server.rounds import Watcher
from server.state import RoundRecord

OnRound: TypeAlias = Callable[[RoundRecord, float], None]
"""Told the record of a round that counted, and the seconds that it took."""


def timed(on_round: OnRound) -> Watcher:
    """Return a watcher that times rounds, from the end of the one before or of another phase."""
    since = time.perf_counter()

    def entered(phase: str) -> None:
        nonlocal since
        since = time.perf_counter()

    def counted(record: RoundRecord) -> None:
        nonlocal since
        before, since = since, time.perf_counter()
        on_round(record, since - before)

    return Watcher(entered=entered, counted=counted)
