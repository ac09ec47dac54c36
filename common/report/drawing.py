"""A figure as a piece of SVG that lies inside a page, in the page's own colours."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import TightLayoutEngine

# Okabe & Ito's colours, told apart by colour-blind readers too; markers tell them apart in print.
# The last one is the ink, which is dark on a light page and light on a dark one.
INK, SURFACE = "#1a2b3c", "#fdfcfb"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
BLUE, VERMILION = COLOURS[0], COLOURS[1]

WIDTH = 4.7
"""Inches; a column of a desk's page, and small enough that a phone shrinks its letters little."""

LONGEST_NAME = 22

LONGEST_LEGEND = 40
"""So many labs can be told apart by their marks; a legend of more takes more room than the plot."""

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.size": 10.0,
    "axes.labelsize": 10.0,
    "axes.titlesize": 10.5,
    # no ticks lie on top, where a place for the title would be looked for around them
    "axes.titley": 1.0,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "text.color": INK,
    # a name may hold a dollar sign, which matplotlib takes for mathematics
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "hatch.color": INK,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
}
_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_USES = re.compile(r'(?:\s*<use xlink:href="#\w+" x="[^"]*" y="[^"]*" style="[^"]*"/>){2,}')
_USE = re.compile(r'<use xlink:href="(#\w+)" x="([^"]*)" y="([^"]*)" style="([^"]*)"/>')


def style(label: str) -> Any:
    """Return the settings that figures are drawn and written under, as a context.

    Parameters
    ----------
    label : str
        Names within the SVG follow from it, so that two figures on a page share none.
    """
    settings: Any = _STYLE | {"svg.hashsalt": label}
    return mpl.rc_context(settings)


class Margins(TightLayoutEngine):
    """Makes room for what lies around the axes, and below it all for the figure's legend.

    Looks at the axes once: to find out what each piece of text measures is what takes the time, and
    constrained layout does it twice.
    """

    def __init__(self) -> None:
        # a third of a letter's height at the rims; no rectangle, which would be a second look
        super().__init__(pad=0.35, rect=None)  # type: ignore[arg-type]

    def execute(self, fig: Figure) -> None:
        """Set the margins of a figure."""
        aspects = [(axes, axes.get_aspect()) for axes in fig.axes]
        for axes, _ in aspects:
            # room beside a square is no margin
            axes.set_aspect("auto")
        super().execute(fig)
        for axes, aspect in aspects:
            axes.set_aspect(aspect)
        top_of_legends = max((one.get_window_extent().y1 for one in fig.legends), default=0.0)
        fig.subplots_adjust(bottom=fig.subplotpars.bottom + top_of_legends / fig.bbox.height)


def canvas(
    width: float = WIDTH, height: float = 3.4, margins: Mapping[str, float] | None = None
) -> tuple[Figure, Axes]:
    """Return a figure of a size in inches, and its axes.

    Its margins, shares of the size, are looked for unless they are given.
    """
    figure = Figure(figsize=(width, height), layout=None if margins else Margins())
    if margins:
        figure.subplots_adjust(**margins)
    axes = figure.add_subplot()
    # few enough that long numbers do not touch; and each takes time to lay out
    axes.locator_params(nbins=5)
    return figure, axes


def legend_below(figure: Figure, handles: Sequence[Artist], names: Sequence[str]) -> None:
    """Say under the axes what marks mean; the figure grows by the rows, unless they are too many.

    Parameters
    ----------
    figure : Figure
        Laid out by `Margins`.
    handles : sequence of Artist
    names : sequence of str
    """
    if len(names) > LONGEST_LEGEND:
        return
    columns = int(figure.get_figwidth() / (2.1 if max(map(len, names)) > 12 else 1.15))
    rows = -(-len(names) // columns)
    figure.set_figheight(figure.get_figheight() + (rows - 1) * 0.18)
    figure.legend(
        handles,
        names,
        loc="lower center",
        ncols=columns,
        handletextpad=0.1,
        columnspacing=1.0,
        frameon=False,
    )


def svg_of(figure: Figure, label: str) -> str:
    """Write a figure as inline SVG: letters as text, no date, the same bytes each time.

    Parameters
    ----------
    label : str
        What the figure shows, for those who cannot see it.
    """
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # a lab may be named in a script that the font lacks: the browser has another
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        # savefig would draw everything once more, for what only other formats need
        FigureCanvasSVG(figure).print_svg(buffer, metadata=_METADATA)
    return _inlined(buffer.getvalue(), label)


def _inlined(text: str, label: str) -> str:
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(
        r' id="(?:figure|axes|text|line2d|patch|xtick|ytick|matplotlib\.axis|legend|'
        r'PathCollection|LineCollection|QuadMesh|FillBetween\w*)_\d+"',
        "",
        text,
    )
    text = re.sub(r' (?:d|x|y)="[^"]*"', _shortened, text)
    text = _USES.sub(_gathered, text)
    text = text.replace(INK, "currentColor").replace(SURFACE, "var(--surface)")
    # the blue is too dark for a dark page
    text = text.replace(BLUE.lower(), "var(--mark)")
    text = re.sub(r"\n\s*", "\n", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1).strip()


def _shortened(attribute: re.Match[str]) -> str:
    return re.sub(r"(\.\d{2})\d+", r"\1", attribute[0])


def _gathered(run: re.Match[str]) -> str:
    """Say what marks in a row have in common once: a page with 600 specimens is half as large."""
    parts = []
    previous = ""
    for href, x, y, look in _USE.findall(run[0]):
        if look != previous:
            parts.append(f'{"</g>" if previous else ""}<g style="{look}">')
            previous = look
        parts.append(f'<use xlink:href="{href}" x="{x}" y="{y}"/>')
    return "".join([*parts, "</g>"])


def short(name: str) -> str:
    """Return a name that fits beside an axis.

    Examples
    --------
    >>> short("Institute of Composite Structures"), short("lab_a")
    ('Institute of Composit…', 'lab_a')
    """
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def spoken(name: str) -> str:
    """Return the name of a target or feature as words.

    Examples
    --------
    >>> spoken("tensile_strength")
    'tensile strength'
    """
    return name.replace("_", " ")


def looks(labs: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Give each lab a colour and a mark, the same in every figure of a page."""
    return {
        lab: (COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)])
        for index, lab in enumerate(labs)
    }
