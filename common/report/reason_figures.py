"""What predictions hang on: importance of features, and partial dependence."""

from __future__ import annotations

from collections.abc import Sequence

from common.report.content import Contribution, Importance, PartialDependence, Target
from common.report.drawing import (
    BLUE,
    INK,
    VERMILION,
    canvas,
    short,
    spoken,
    style,
    svg_of,
)
from common.units import in_brackets


def importance_figure(found: Sequence[Importance], target: Target) -> str:
    """Draw how much the error grows with each feature shuffled, largest on top."""
    label = f"{spoken(target.name)}, how much the error grows with a feature shuffled"
    ranked = sorted(found, key=lambda one: one.increase)
    with style(label):
        figure, axes = canvas(height=1.2 + 0.27 * len(ranked))
        places = range(len(ranked))
        axes.barh(
            places,
            [one.increase for one in ranked],
            0.62,
            xerr=[one.spread for one in ranked],
            color=BLUE,
            error_kw={"ecolor": INK, "elinewidth": 1.1, "capsize": 2},
        )
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(places, [short(spoken(one.feature)) for one in ranked])
        axes.set_xlabel(f"growth of the mean absolute error{in_brackets(target.unit)}")
        axes.set_title(spoken(target.name))
        return svg_of(figure, label)


MARGINS = {"left": 0.19, "right": 0.97, "bottom": 0.19, "top": 0.95}
"""Of figures that are many and alike: margins that are looked for take as long as the drawing."""


def dependence_figure(curve: PartialDependence, target: Target) -> str:
    """Draw the mean prediction against one feature."""
    label = f"{spoken(target.name)} against {spoken(curve.feature)}"
    with style(label):
        figure, axes = canvas(height=2.9, margins=MARGINS)
        axes.plot(curve.x, curve.y, color=BLUE)
        axes.set_xlabel(f"{spoken(curve.feature)}{in_brackets(curve.unit)}")
        axes.set_ylabel(f"{spoken(target.name)}{in_brackets(target.unit)}")
        return svg_of(figure, label)


def contribution_figure(found: Sequence[Contribution], target: Target) -> str:
    """Draw each lab's Shapley value; those whose presence hurts are flagged by colour and hatch."""
    label = f"{spoken(target.name)}, what each lab contributes"
    ranked = sorted(found, key=lambda one: one.value)
    with style(label):
        figure, axes = canvas(height=1.2 + 0.27 * len(ranked))
        for place, one in enumerate(ranked):
            colour, hatch = (VERMILION, "///") if one.is_flagged else (BLUE, "")
            axes.barh(place, one.value, 0.62, edgecolor=INK, linewidth=0, color=colour, hatch=hatch)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(ranked)), [short(one.lab) for one in ranked])
        is_share = in_brackets(ranked[0].unit) == ""
        unit = " (share of variance explained)" if is_share else in_brackets(ranked[0].unit)
        axes.set_xlabel(f"contribution{unit}")
        axes.set_title(spoken(target.name))
        return svg_of(figure, label)
