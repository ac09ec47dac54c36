"""Progress bars with a rate and the time left."""

from __future__ import annotations

from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
)
from rich.text import Text


class RateColumn(ProgressColumn):
    """Steps a second."""

    def render(self, task: Task) -> Text:
        """Return the rate, once there is one."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.3g}/s", style="progress.data.speed")


class TimeColumn(ProgressColumn):
    """The time left; the time that it took, once all is done."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """Return the time with the word that says which it is."""
        if task.finished:
            return Text(f"{_clock(task.finished_time)} taken", style="progress.elapsed")
        return Text(f"{_clock(task.time_remaining)} left", style="progress.remaining")


def _clock(seconds: float | None) -> str:
    return "-:--:--" if seconds is None else str(timedelta(seconds=round(seconds)))


def steps(console: Console) -> Progress:
    """Return bars to be used as a context manager; drawn on a terminal only, in 80 columns too."""
    return Progress(
        TextColumn("{task.description:<29}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        RateColumn(),
        TimeColumn(),
        console=console,
        disable=not console.is_terminal,
        expand=True,
    )
