"""What a simulation says in the terminal: each mode, each lab, and one plain sentence."""

from __future__ import annotations

from math import floor, log10

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from client.verdict import HOLD, JOIN, Gain
from common.units import in_brackets
from simulation.experiment import Outcome
from simulation.report import MODE_LABELS, closing_sentence
from simulation.scenarios.events import in_one_line, virtual_time
from simulation.verdict import gains

MOST_ROWS = 50
"""Labs in a table."""


def print_summary(outcome: Outcome, console: Console) -> None:
    """Print what a person wants to know: each mode, each lab, and one plain sentence."""
    found = gains(outcome)
    for name in outcome.consortium.federation.targets:
        console.print(_modes_table(outcome, name), "")
        of_target = [gain for gain in found if gain.target == name]
        if len(of_target) > MOST_ROWS:
            console.print(f"{len(of_target)} labs have a row each in report.html.", "")
        elif of_target:
            console.print(labs_table(of_target), "")
    for lab, reason in outcome.excluded.items():
        console.print(Text(f"{lab} was put out of the federated run: {reason}", "red"))
    if outcome.diary.events:
        told = f"{in_one_line(outcome.diary.events)} {virtual_time(outcome.diary.times)}"
        console.print(Text(told.strip()))
    console.print(Text(closing_sentence(outcome), "bold"))


def _modes_table(outcome: Outcome, target: str) -> Table:
    rows = {mode: outcome.metrics(mode)[target] for mode in outcome.predicted}
    unit = in_brackets(outcome.consortium.federation.targets[target].unit)
    table = titled_table(f"{target}: specimens predicted while held out")
    table.add_column("mode")
    for heading in ("specimens", "R²", f"MAE{unit}", f"RMSE{unit}"):
        table.add_column(heading, justify="right")
    for mode, row in rows.items():
        count, r2 = str(row["num_specimens"]), _shown(row["r2"], ".3f")
        cells = [count, r2, _shown(row["mae"]), _shown(row["rmse"])]
        table.add_row(MODE_LABELS[mode], *cells, style="bold" if mode == "federated" else "")
    return table


def labs_table(of_target: list[Gain]) -> Table:
    """Return what joining is worth to each lab, for one target; no wider than 80 columns."""
    unit = in_brackets(of_target[0].unit)
    table = titled_table(f"{of_target[0].target}: mean absolute error of each lab{unit}")
    table.caption = "hold: clearly worse joined. tests: so many more of its own are worth as much"
    table.caption_justify = "left"
    # in the 80 columns of a plain terminal too
    table.pad_edge = table.show_edge = False
    table.collapse_padding = True
    table.add_column("lab", overflow="fold", min_width=8)
    for heading in ("n", "alone", "joined", "gain, 95 %"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("joining", no_wrap=True)
    table.add_column("tests", justify="right", no_wrap=True)
    colours = {JOIN: "green", HOLD: "red"}
    for gain in of_target:
        table.add_row(
            Text(gain.lab),
            str(gain.num_specimens),
            *(_shown(error) for error in (gain.alone, gain.joined)),
            _with_its_ends(gain),
            gain.verdict,
            _more(gain),
            style=colours.get(gain.verdict, ""),
        )
    return table


def _with_its_ends(gain: Gain) -> str:
    """Return a gain and its interval, whose half width has two digits that count (GUM, 7.2.6)."""
    half = (gain.high - gain.low) / 2 or gain.alone
    places = 1 - floor(log10(half)) if half > 0 else 0
    # no minus before what is zero then
    mean, low, high = (round(value, places) + 0.0 for value in (gain.mean, gain.low, gain.high))
    shown = max(places, 0)
    return f"{mean:+.{shown}f}, {low:.{shown}f} to {high:.{shown}f}"


def _more(gain: Gain) -> str:
    """Say how many more specimens of its own would have brought a lab as much as joining."""
    if gain.more_specimens is None or gain.verdict != JOIN:
        return "–"
    if np.isinf(gain.more_specimens):
        return f"> {gain.most_specimens}"
    return f"{max(gain.more_specimens, 1.0):.0f}"


def titled_table(title: str) -> Table:
    """Return a table as the terminal shows it, with its title and no columns yet."""
    return Table(title=Text(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD)


def _shown(value: float | None, form: str = "#.3g") -> str:
    return "–" if value is None else format(value, form)
