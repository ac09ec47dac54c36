"""How well the model fits: measured against predicted, what is left, and how training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from common.report.content import ParitySeries, Target, TrainingRound
from common.report.drawing import (
    BLUE,
    INK,
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

MANY = 300
"""So many specimens are drawn smaller and fainter."""

MOST_MISSING = 3
"""A panel of how many labs were missing grows up to so many."""

Looks = Mapping[str, tuple[str, str]]


def parity_figure(
    series: Sequence[ParitySeries], target: Target, looks: Looks, limits: tuple[float, float]
) -> str:
    """Draw predicted against measured with intervals, a mark and colour for each lab."""
    label = f"{spoken(target.name)}, predicted against measured: {series[0].mode}"
    with style(label):
        figure, axes = canvas(height=4.9)
        axes.plot(limits, limits, color=INK, alpha=0.5, linewidth=1, zorder=0)
        faint = 0.4 if _number(series) < MANY else 0.2
        for one in series:
            colour, _ = looks[one.lab]
            if one.lower is not None and one.upper is not None:
                x, y = _bars(one.measured, one.lower, one.upper)
                axes.plot(x, y, color=colour, alpha=faint, linewidth=0.8, zorder=1)
        measured = [one.measured for one in series]
        _marks(axes, series, looks, measured, [one.predicted for one in series])
        axes.set(xlim=limits, ylim=limits, aspect="equal", title=series[0].mode)
        unit = in_brackets(target.unit)
        axes.set(xlabel=f"measured {spoken(target.name)}{unit}", ylabel=f"predicted{unit}")
        _legend(figure, axes)
        return svg_of(figure, label)


def residual_figure(series: Sequence[ParitySeries], target: Target, looks: Looks) -> str:
    """Draw predicted minus measured over the predicted value.

    Over the measured one they fall even for the best of predictions, which lie nearer to the mean.
    """
    label = f"{spoken(target.name)}, what is left: {series[0].mode}"
    with style(label):
        figure, axes = canvas(height=3.6)
        axes.axhline(0, color=INK, alpha=0.5, linewidth=1, zorder=0)
        left = [one.predicted - one.measured for one in series]
        _marks(axes, series, looks, [one.predicted for one in series], left)
        unit = in_brackets(target.unit)
        axes.set(title=f"residuals: {series[0].mode}", ylabel=f"predicted − measured{unit}")
        axes.set_xlabel(f"predicted {spoken(target.name)}{unit}")
        _legend(figure, axes)
        return svg_of(figure, label)


def parity_limits(series: Sequence[ParitySeries]) -> tuple[float, float]:
    """Return limits that hold all finite values, for all ways of training alike.

    Examples
    --------
    >>> one = ParitySeries(target="strength", mode="alone", lab="a",
    ...                    measured=np.array([0.0, 100.0]), predicted=np.array([50.0, np.nan]))
    >>> parity_limits([one])
    (-4.0, 104.0)
    """
    flat = np.concatenate([v for one in series for v in (one.measured, one.predicted)])
    flat = flat[np.isfinite(flat)]
    low, high = (float(flat.min()), float(flat.max())) if flat.size else (0.0, 1.0)
    margin = 0.04 * (high - low or 1.0)
    return low - margin, high + margin


def _bars(x: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return one broken line for all bars; a path for each would fill the page."""
    known = np.isfinite(x) & np.isfinite(lower) & np.isfinite(upper)
    gap = np.full(int(known.sum()), np.nan)
    columns = np.stack([lower[known], upper[known], gap], axis=1)
    return np.repeat(x[known], 3), columns.ravel()


def _marks(
    axes: Axes,
    series: Sequence[ParitySeries],
    looks: Looks,
    across: Sequence[np.ndarray],
    up: Sequence[np.ndarray],
) -> None:
    size = 4.5 if _number(series) < MANY else 3.2
    for one, x, y in zip(series, across, up, strict=True):
        colour, mark = looks[one.lab]
        known = np.isfinite(x) & np.isfinite(y)
        axes.plot(
            x[known],
            y[known],
            mark,
            color=colour,
            markersize=size,
            markeredgewidth=0,
            alpha=0.8,
            label=short(one.lab),
        )


def _number(series: Sequence[ParitySeries]) -> int:
    return sum(len(one.measured) for one in series)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    if len(names) > 1:
        legend_below(figure, handles, names)


def training_figure(rounds: Sequence[TrainingRound]) -> str:
    """Draw the loss over the rounds, and below it each lab's rounds without an update.

    Where labs are not named, their number stands there.
    """
    label = "loss over the rounds, and labs that were missing"
    missing = sorted({lab for one in rounds for lab in one.missing})
    most = max(one.num_missing for one in rounds)
    num_rows = len(missing) or (min(most, MOST_MISSING) + 1 if most else 0)
    with style(label):
        figure = Figure(figsize=(WIDTH, 2.9 + 0.24 * num_rows), layout=Margins())
        ratios = [2.6, 0.35 + 0.24 * num_rows] if num_rows else [1.0]
        panels = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)
        _loss(panels[0, 0], rounds)
        if missing:
            _missing(panels[1, 0], rounds, missing)
        elif most:
            _num_missing(panels[1, 0], rounds, most)
        panels[-1, 0].set_xlabel("round")
        panels[-1, 0].xaxis.get_major_locator().set_params(integer=True)
        return svg_of(figure, label)


def _loss(axes: Axes, rounds: Sequence[TrainingRound]) -> None:
    folds = sorted({one.fold for one in rounds})
    for fold in folds:
        chosen = [one for one in rounds if one.fold == fold]
        steps, losses = [one.server_round for one in chosen], [one.loss for one in chosen]
        axes.plot(steps, losses, color=BLUE, alpha=1.0 if len(folds) == 1 else 0.5)
    finite = [one.loss for one in rounds if np.isfinite(one.loss)]
    if finite and 0 < 20 * min(finite) < max(finite):
        axes.set_yscale("log")
        # its own formatter writes powers as formulas, which are turned off
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("training loss")
    if len(folds) > 1:
        axes.set_title(f"a line for each of {len(folds)} folds")


def _missing(axes: Axes, rounds: Sequence[TrainingRound], missing: Sequence[str]) -> None:
    rows = {lab: row for row, lab in enumerate(missing)}
    points = [(one.server_round, rows[lab]) for one in rounds for lab in one.missing]
    axes.plot(*zip(*points, strict=True), "x", color=VERMILION, markersize=5)
    axes.set_yticks(range(len(missing)), [short(lab) for lab in missing])
    axes.set(ylim=(len(missing) - 0.5, -0.5), title="× missing in this round")


def _num_missing(axes: Axes, rounds: Sequence[TrainingRound], most: int) -> None:
    points = [(one.server_round, one.num_missing) for one in rounds if one.num_missing]
    axes.plot(*zip(*points, strict=True), "x", color=VERMILION, markersize=5)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=MOST_MISSING, integer=True))
    axes.set(ylim=(0, 1.3 * most), ylabel="labs", title="× number of labs missing in this round")
