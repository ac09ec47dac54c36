"""What a section of the page is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import compress

from markupsafe import Markup

from common.report.lab_figures import compact

EMPTY = "–"
"""In a cell of which nothing is known."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; the first `num_text` columns are text, the others numbers.

    Attributes
    ----------
    strong : frozenset of int
        Rows that stand out.
    """

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_text: int = 1
    strong: frozenset[int] = frozenset()
    kind: str = "table"

    def without_empty_columns(self) -> Table:
        """Return it without the columns in which every cell is a dash."""
        told = [any(row[i] != EMPTY for row in self.rows) for i in range(len(self.headings))]
        return replace(
            self,
            headings=tuple(compress(self.headings, told)),
            rows=tuple(tuple(compress(row, told)) for row in self.rows),
            num_text=sum(told[: self.num_text]),
        )

    def is_number(self, column: int) -> bool:
        """Tell whether a column is set to the right."""
        return column >= self.num_text


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing, with a sentence on how to read it."""

    svg: Markup
    caption: str = ""
    kind: str = "figure"


@dataclass(frozen=True, kw_only=True)
class Words:
    """Paragraphs, or the points of a list."""

    points: tuple[str, ...]
    kind: str = "words"


Block = Table | Figure | Words


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, a sentence on what stands below it, and that."""

    anchor: str
    title: str
    lead: str
    blocks: tuple[Block, ...]


def drawn(svg: str | None, caption: str = "") -> list[Block]:
    """Return a figure, or nothing where nothing could be drawn."""
    return [] if svg is None else [Figure(svg=Markup(svg), caption=caption)]


def number(value: float | None, *, sign: bool = False, like: float | None = None) -> str:
    """Return a number to three digits, or with the decimals of another one, or a dash.

    Examples
    --------
    >>> number(61.24), number(None), number(0.52, sign=True), number(-0.52, like=61.24)
    ('61.2', '–', '+0.520', '−0.5')
    """
    if value is None or math.isnan(value):
        return EMPTY
    if math.isinf(value):
        return "unbounded"
    text = compact(value, like=like if like is not None and math.isfinite(like) else None)
    return f"+{text}" if sign and value > 0 else text.replace("-", "−", 1)


def percent(value: float | None) -> str:
    """Return a share in percent, or a dash.

    Examples
    --------
    >>> percent(0.913), percent(None)
    ('91 %', '–')
    """
    return EMPTY if value is None or math.isnan(value) else f"{100 * value:.0f} %"
