"""A simulation as it runs, in the terminal: bars with the time left, and the round that counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from common.progress import RateColumn
from common.round_log import RoundLine

REFRESHED_PER_SECOND = 4
"""Drawing takes a few milliseconds, in which no lab trains."""

SHOWN_ROUNDS = 28

LEVELS = "▁▂▃▄▅▆▇█"

MOST_NAMES = 3


class LiveView:
    """Draws on a terminal; on anything else it says what it is told to say, and no more.

    Parameters
    ----------
    console : Console
        Of standard error.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            RateColumn(),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            expand=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._rounds: tuple[RoundLine, ...] = ()
        self._live = Live(
            self, console=console, refresh_per_second=REFRESHED_PER_SECOND, transient=False
        )

    def __enter__(self) -> LiveView:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def say(self, sentence: str) -> None:
        """Print a line above the bars."""
        self._console.print(sentence, markup=False, highlight=False)

    def count(self, what: str, total: int) -> Callable[[], None]:
        """Begin a bar, and return what moves it on by one, from any thread."""
        task = self._bars.add_task(what, total=total)
        return lambda: self._bars.advance(task)

    def step(self, what: str, done: int, total: int) -> None:
        """Move the bar of what is done."""
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what.replace("_", " "), total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)

    def round(self, line: RoundLine) -> None:
        """Take a round that counted; the curve begins anew with each fold."""
        before = self._rounds
        if before and before[-1].fold != line.fold:
            before = ()
        self._rounds = (*before[1 - SHOWN_ROUNDS :], line)

    def __rich__(self) -> Group:
        """Return what is drawn now."""
        rounds = self._rounds
        if not rounds:
            return Group(self._bars)
        plain = self._console.options.ascii_only
        return Group(self._bars, _loss(rounds, plain=plain), _labs(rounds[-1]))


def sparkline(values: Sequence[float]) -> str:
    """Return a curve of one line, from the lowest to the highest of the values.

    Examples
    --------
    >>> sparkline([8.0, 4.0, 2.0, 1.0, 1.0])
    '█▄▂▁▁'
    """
    low, high = min(values), max(values)
    top = len(LEVELS) - 1
    scale = top / (high - low) if high > low else 0.0
    return "".join(LEVELS[round((value - low) * scale)] for value in values)


def _loss(rounds: Sequence[RoundLine], *, plain: bool) -> Text:
    last = rounds[-1]
    losses = [line.train_loss for line in rounds if line.train_loss is not None]
    seconds = sum(line.seconds or 0.0 for line in rounds)
    text = _line(f"round {last.server_round}")
    if last.fold is not None:
        text.append(f", fold {last.fold + 1}")
    if last.train_loss is not None:
        text.append(f"  loss {last.train_loss:.4g} ")
    if losses and not plain:
        text.append(sparkline(losses), style="bar.complete")
    if seconds > 0:
        text.append(f"  {len(rounds) / seconds:.3g} rounds/s", style="progress.data.speed")
    return text


def _labs(line: RoundLine) -> Text:
    count = len({*line.labs, *line.failed, *line.quarantined, *line.out})
    text = _line(f"labs {len(line.labs)} of {count}")
    for what, style, reasons in (
        ("missing", "yellow", line.failed),
        ("quarantined", "red", line.quarantined),
        ("out", "dim", dict.fromkeys(line.out, "")),
    ):
        if reasons:
            text.append(f"  {what} {len(reasons)}: {_named(reasons)}", style=style)
    return text


def _named(reasons: Mapping[str, str]) -> str:
    """Return the first labs with their reasons; names may hold what no terminal should see."""
    shown = [f"{lab} ({why})" if why else lab for lab, why in reasons.items()][:MOST_NAMES]
    more = [] if len(reasons) <= MOST_NAMES else ["..."]
    return "".join(c if c.isprintable() else "?" for c in ", ".join([*shown, *more]))


def _line(words: str) -> Text:
    return Text(words, no_wrap=True, overflow="ellipsis")
