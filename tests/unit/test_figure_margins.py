"""Figures: all lies inside, the legend below, and many labs do not squash the plot."""

from __future__ import annotations

import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from common.report.drawing import LONGEST_LEGEND, Margins, canvas, legend_below, style

LONG = "Institute of Composi…"


def drawn(labs: int, name: str = "lab", aspect: str = "equal") -> tuple[Figure, Axes]:
    with style("margins"):
        figure, axes = canvas(height=4.9)
        for lab in range(labs):
            axes.plot([100, 900], [100, 900], "o", label=f"{name}{lab}")
        axes.set(xlim=(0, 1000), ylim=(0, 1000), aspect=aspect, title="together")
        axes.set(xlabel="measured strength (MPa)", ylabel="predicted (MPa)")
        legend_below(figure, *axes.get_legend_handles_labels())
        FigureCanvasSVG(figure)
        figure.draw_without_rendering()
    return figure, axes


@pytest.mark.parametrize("aspect", ["equal", "auto"])
@pytest.mark.parametrize("name", ["lab", LONG])
@pytest.mark.parametrize("labs", [1, 4, 9, LONGEST_LEGEND])
def test_all_lies_inside_and_the_legend_below(labs: int, name: str, aspect: str) -> None:
    figure, axes = drawn(labs, name, aspect)
    plot = axes.get_tightbbox()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert plot is not None
    assert box.y1 < plot.y0
    for inside in (plot, box):
        assert min(inside.x0, inside.y0) >= 0
        assert inside.x1 <= figure.bbox.x1
        assert inside.y1 <= figure.bbox.y1


def test_the_legend_of_many_labs_does_not_squash_the_plot() -> None:
    few, many = (drawn(labs)[1].get_window_extent().height for labs in (2, LONGEST_LEGEND))
    assert many > 0.9 * few


def test_labs_that_marks_cannot_tell_apart_get_no_legend() -> None:
    figure, _ = drawn(LONGEST_LEGEND + 1)
    assert not figure.legends


def test_panels_beside_each_other_share_the_room() -> None:
    figure = Figure(figsize=(8.4, 4.6), layout=Margins())
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.set(aspect="equal", title="alone", xlabel="measured", ylabel="predicted")
    FigureCanvasSVG(figure)
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in (left, right)]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[0].x1 < boxes[1].x0
    assert left.get_window_extent().width == pytest.approx(right.get_window_extent().width)
