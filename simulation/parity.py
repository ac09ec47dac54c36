"""The parity plot: predicted against measured, in units, a colour for each lab."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from common.report.drawing import COLOURS, MARKERS, Margins, legend_below, short
from common.units import symbol
from simulation.experiment import Outcome

TITLES = {
    "local": "each lab alone",
    "federated": "together (federated)",
    "centralized": "all data pooled",
    "ridge": "ridge, pooled",
    "random_forest": "random forest, pooled",
}
SHOWN = ("local", "federated")


def parity_png(outcome: Outcome) -> bytes:
    """Draw alone beside together, a row for each target, and return the PNG."""
    modes = [mode for mode in SHOWN if mode in outcome.predicted] or list(outcome.predicted)[:1]
    targets = outcome.consortium.federation.targets
    size = (4.2 * len(modes), 4.2 * len(targets) + 0.4)
    figure = Figure(figsize=size, dpi=100, layout=Margins())
    axes = figure.subplots(len(targets), len(modes), squeeze=False)
    for row, (name, target) in enumerate(targets.items()):
        limits = _limits(outcome, modes, row)
        unit = f" ({symbol(target.unit)})" if symbol(target.unit) else ""
        for column, mode in enumerate(modes):
            axis = axes[row][column]
            _draw(axis, outcome, mode, row, limits)
            axis.set_xlabel(f"measured {name.replace('_', ' ')}{unit}")
            if column == 0:
                axis.set_ylabel(f"predicted{unit}")
            r2 = outcome.metrics(mode)[name]["r2"]
            score = "" if r2 is None else f", R² = {r2:.2f}"
            axis.set_title(f"{TITLES[mode]}{score}")
    labs = [short(lab.lab) for lab in outcome.consortium.labs]
    legend_below(figure, axes[0][0].collections, labs)
    for text in figure.findobj(Text):
        # a name may hold a dollar sign, which matplotlib takes for mathematics
        text.set_parse_math(False)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # a lab may be named in a script that the font lacks: a box is drawn, the plot is made
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        # savefig would draw everything once more, for what only other formats need
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _draw(axis: Any, outcome: Outcome, mode: str, target: int, limits: tuple[float, float]) -> None:
    axis.plot(limits, limits, color="0.6", linewidth=1, zorder=0)
    size = 22 if sum(len(lab) for lab in outcome.consortium.labs) < 500 else 8
    for index, lab in enumerate(outcome.consortium.labs):
        axis.scatter(
            lab.targets[:, target],
            outcome.predicted[mode][index][:, target],
            s=size,
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            alpha=0.75,
            linewidths=0,
        )
    axis.set_xlim(limits)
    axis.set_ylim(limits)
    axis.locator_params(nbins=6)
    axis.set_aspect("equal")
    axis.spines[["top", "right"]].set_visible(False)


def _limits(outcome: Outcome, modes: list[str], target: int) -> tuple[float, float]:
    values = [
        column[:, target][np.isfinite(outcome.predicted[modes[0]][index][:, target])]
        for mode in modes
        for index, lab in enumerate(outcome.consortium.labs)
        for column in (lab.targets, outcome.predicted[mode][index])
    ]
    flat = np.concatenate(values)
    flat = flat[np.isfinite(flat)]
    low, high = (float(flat.min()), float(flat.max())) if flat.size else (0.0, 1.0)
    margin = 0.04 * (high - low or 1.0)
    return low - margin, high + margin
