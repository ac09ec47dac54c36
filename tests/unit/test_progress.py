"""Bars of commands that take a while: what is left is to be read in a plain terminal."""

import io
import itertools
import re

from rich.console import Console

from common.progress import steps


def drawn(description: str, completed: int) -> str:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    ticks = itertools.count()
    bars = steps(console)
    bars.get_time = lambda: next(ticks) / 2
    bar = bars.add_task(description, total=1000)
    for _ in range(completed // 10):
        bars.advance(bar, 10)
    with console.capture() as capture:
        console.print(bars)
    return capture.get()


def test_eighty_columns_hold_the_time_left_and_the_longest_name() -> None:
    [line] = drawn("drawing and solving specimens", 500).splitlines()
    assert len(line) <= 80
    assert line.startswith("drawing and solving specimens ")
    assert " 500/1000 " in line and "/s" in line
    assert re.search(r" 0:\d\d:\d\d left$", line), line


def test_what_is_done_says_how_long_it_took() -> None:
    [line] = drawn("trials", 1000).splitlines()
    assert re.search(r" 1000/1000 .* 0:\d\d:\d\d taken$", line), line
