"""What happened in a simulation, in the order in which it did, and the virtual time it took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

MOST_SPANS = 8
"""Of rounds that are named in a row."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened.

    Attributes
    ----------
    kind : str
        In two or three words, such as ``dropped out``.
    words : str
        What more there is to say.
    lab : str or None
        None for what happens to a round.
    fold, server_round, attempt : int or None
        None for what a lab brings with it; a round that is tried again has further attempts.
    """

    kind: str
    words: str = ""
    lab: str | None = None
    fold: int | None = None
    server_round: int | None = None
    attempt: int | None = None


@dataclass(frozen=True, kw_only=True)
class RoundTime:
    """How long an attempt at a round took, in virtual time.

    Attributes
    ----------
    seconds : float
        To the last reply, or to the deadline where a lab was late.
    clock : float
        Seconds since the first round of the fold began, pauses between attempts counted.
    """

    fold: int
    server_round: int
    attempt: int
    seconds: float
    clock: float


@dataclass(frozen=True, kw_only=True)
class Diary:
    """All events and times of a simulation; written to as it runs."""

    events: list[Event] = field(default_factory=list)
    times: list[RoundTime] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Return events and times for ``result.json``; what an event lacks is left out."""
        return {
            "events": [
                {key: value for key, value in asdict(event).items() if value not in (None, "")}
                for event in self.events
            ],
            "virtual_time": [asdict(time) for time in self.times],
        }


def told_in_rows(events: Sequence[Event], most: int) -> list[tuple[str, str, str, str]]:
    """Return lab, kind, rounds and words of events, those that differ by their round in one row.

    What happened to a round as a whole is told without its words, which differ each time.

    Examples
    --------
    >>> told_in_rows([Event(kind="late", lab="a", server_round=n, fold=0) for n in (1, 2, 3, 7)], 9)
    [('a', 'late', '1 to 3, 7', '')]
    """
    rows: dict[tuple[str, str, str], list[int]] = {}
    for event in events:
        key = (event.lab or "all", event.kind, event.words if event.lab else "")
        rows.setdefault(key, []).extend([event.server_round] if event.server_round else [])
    shown = [(lab, kind, _spans(rounds), words) for (lab, kind, words), rounds in rows.items()]
    shown.sort()
    left = len(shown) - most
    return shown if left <= 0 else [*shown[:most], (f"and {left} more", "", "", "")]


def virtual_time(times: Sequence[RoundTime]) -> str:
    """Say how long the rounds of the folds took; nothing where labs take no time.

    Examples
    --------
    >>> virtual_time([RoundTime(fold=0, server_round=1, attempt=1, seconds=90, clock=90.0)])
    'In virtual time, the rounds of a fold took 1.5 minutes.'
    """
    if not times:
        return ""
    of_folds = {time.fold: time.clock for time in times}
    minutes = sum(of_folds.values()) / len(of_folds) / 60
    return f"In virtual time, the rounds of a fold took {minutes:.3g} minutes."


def in_one_line(events: Sequence[Event]) -> str:
    """Return how often each kind of event happened.

    Examples
    --------
    >>> in_one_line([Event(kind=kind) for kind in ("late", "late", "put out")])
    'What happened: late 2, put out 1.'
    """
    counts = Counter(event.kind for event in events)
    return f"What happened: {', '.join(f'{kind} {count}' for kind, count in counts.items())}."


def _spans(rounds: Sequence[int]) -> str:
    spans: list[list[int]] = []
    for number in sorted(set(rounds)):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    named = [
        f"{a} to {b}" if b > a + 1 else f"{a}, {b}" if b > a else f"{a}"
        for a, b in spans[:MOST_SPANS]
    ]
    left = sum(b - a + 1 for a, b in spans[MOST_SPANS:])
    return ", ".join(named) + (f" and {left} more" if left else "")
