"""Lab against lab: gains, coverage of intervals, and matrices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from common.report.content import CalibrationRow, LabRow, Matrix, Target
from common.report.drawing import (
    BLUE,
    INK,
    SURFACE,
    VERMILION,
    WIDTH,
    Margins,
    canvas,
    legend_below,
    short,
    spoken,
    style,
    svg_of,
)
from common.units import in_brackets

# nearly black and white, which do not follow the page: the cell behind them does not either
_ON_LIGHT, _ON_DARK = "#010101", "#fefefe"
_VERDICTS = (
    ("join", "o", BLUE, BLUE),
    ("no difference", "D", INK, SURFACE),
    ("hold", "s", VERMILION, VERMILION),
)


def gain_figure(rows: Sequence[LabRow], target: Target) -> str | None:
    """Draw each lab's gain with its interval, largest on top; None where no lab has one."""
    told = (row for row in rows if row.gain is not None and np.isfinite(row.gain))
    known = sorted(told, key=lambda row: row.gain or 0.0)
    if not known:
        return None
    label = f"{spoken(target.name)}, how much smaller each lab's error is joined than alone"
    with style(label):
        figure, axes = canvas(height=1.5 + 0.3 * len(known))
        axes.axvline(0, color=INK, linewidth=1)
        for place, row in enumerate(known):
            if row.gain_low is not None and row.gain_high is not None:
                axes.plot([row.gain_low, row.gain_high], [place, place], color=INK, linewidth=1.2)
        for verdict, mark, edge, fill in _VERDICTS:
            chosen = [
                (row.gain, place)
                for place, row in enumerate(known)
                if (row.verdict or "no difference") == verdict
            ]
            if chosen:
                x, y = zip(*chosen, strict=True)
                axes.plot(x, y, mark, color=edge, markerfacecolor=fill, label=verdict, zorder=3)
        axes.set_yticks(range(len(known)), [short(row.lab) for row in known])
        axes.set_ylim(-0.6, len(known) - 0.4)
        axes.set_xlabel(f"smaller error joined than alone{in_brackets(target.unit)}")
        axes.set_title(spoken(target.name))
        legend_below(figure, *axes.get_legend_handles_labels())
        return svg_of(figure, label)


def calibration_figure(rows: Sequence[CalibrationRow], target: Target) -> str:
    """Draw each lab's coverage, a panel a level, on the band that chance allows (95 %)."""
    label = f"{spoken(target.name)}, share of specimens inside their interval"
    levels = sorted({row.level for row in rows})
    names = list(dict.fromkeys(row.lab for row in rows))[::-1]
    with style(label):
        figure = Figure(figsize=(WIDTH, 1.3 + 0.27 * len(names)), layout=Margins())
        panels = figure.subplots(1, len(levels), sharey=True, squeeze=False)[0]
        for axes, level in zip(panels, levels, strict=True):
            of_level = [row for row in rows if row.level == level]
            _coverage(axes, of_level, names)
        panels[0].set_yticks(range(len(names)), [short(name or "all labs") for name in names])
        figure.supxlabel("specimens inside (%)", fontsize=10)
        figure.suptitle(spoken(target.name), fontsize=10.5)
        return svg_of(figure, label)


def chance(level: float, num_specimens: int) -> tuple[float, float]:
    """Return the shares that chance allows in 19 of 20 cases if the level is right.

    Examples
    --------
    >>> chance(0.9, 20)
    (0.75, 1.0)
    """
    low, high = stats.binom.interval(0.95, num_specimens, level)
    return float(low) / num_specimens, float(high) / num_specimens


def _coverage(axes: Axes, rows: Sequence[CalibrationRow], names: Sequence[str | None]) -> None:
    axes.axvline(100 * rows[0].level, color=INK, linewidth=1, linestyle="--")
    for row in rows:
        place = names.index(row.lab)
        low, high = chance(row.level, max(row.num_specimens, 1))
        axes.barh(place, 100 * (high - low), 0.6, 100 * low, color=INK, alpha=0.15, linewidth=0)
        is_outside = not low <= row.coverage <= high
        mark, colour = ("s", VERMILION) if is_outside else ("o", BLUE)
        axes.plot(100 * row.coverage, place, mark, color=colour, markersize=5)
    axes.set(xlim=(min(45.0, *(100 * row.coverage - 4 for row in rows)), 103))
    axes.set_title(f"{100 * rows[0].level:g} % intervals")


def heat_map(matrix: Matrix) -> str:
    """Draw a matrix with its numbers in the cells; dark is large, and an empty cell has a dash."""
    num_rows, num_columns = matrix.values.shape
    label = matrix.title
    with style(label):
        size = (max(WIDTH, 1.9 + 0.52 * num_columns), 1.9 + 0.34 * num_rows)
        figure, axes = canvas(*size)
        finite = matrix.values[np.isfinite(matrix.values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        colours = colormaps["Blues"]
        shade = (matrix.values - low) / ((high - low) or 1.0) * 0.8
        axes.pcolormesh(
            np.ma.masked_invalid(shade),
            cmap=colours,
            vmin=0,
            vmax=1,
            edgecolor=SURFACE,
            linewidth=1,
        )
        _numbers(axes, matrix.values, shade)
        _names(axes, matrix)
        return svg_of(figure, label)


def _numbers(axes: Axes, values: np.ndarray, shade: np.ndarray) -> None:
    for (row, column), value in np.ndenumerate(values):
        colour = _ON_DARK if shade[row, column] > 0.62 else _ON_LIGHT
        text = compact(float(value))
        if np.isnan(value):
            colour, text = INK, "–"
        place = {"ha": "center", "va": "center"}
        cell = axes.text(column + 0.5, row + 0.5, text, place, color=colour, fontsize=9)
        # it lies within the axes: their margins need not be looked for around it
        cell.set_in_layout(False)


def _names(axes: Axes, matrix: Matrix) -> None:
    axes.set_xticks(
        np.arange(len(matrix.columns)) + 0.5,
        [short(name) for name in matrix.columns],
        rotation=40,
        ha="right",
        rotation_mode="anchor",
    )
    axes.set_yticks(np.arange(len(matrix.rows)) + 0.5, [short(name) for name in matrix.rows])
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel=matrix.column_title, ylabel=matrix.row_title)


def compact(value: float, digits: int = 3, like: float | None = None) -> str:
    """Return a number with so many digits that count, and no exponent where none is needed.

    Parameters
    ----------
    value : float
    digits : int
    like : float or None
        Use as many decimals as this number gets, so that the two can be compared.

    Examples
    --------
    >>> compact(612.4), compact(61.24), compact(0.5), compact(123456.0), compact(-0.0001)
    ('612', '61.2', '0.500', '123456', '-0.000100')
    >>> compact(-0.659, like=65.9)
    '-0.7'
    """
    size = abs(like or value)
    if size and not 1e-4 <= size < 1e7:
        return f"{value:.{digits - 1}e}"
    places = digits - 1 - int(np.floor(np.log10(size))) if size else digits - 1
    return f"{value:.{max(places, 0)}f}"
