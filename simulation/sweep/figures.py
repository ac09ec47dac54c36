"""How a search went: its history, what mattered, and what accuracy costs in rounds and bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter

from common.report.drawing import BLUE, INK, VERMILION, canvas, short, style, svg_of

WORST_SHOWN = 3.0
"""Errors that are so many times the best one's are drawn at the edge: one trial that went astray
would flatten all others."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One scored trial as figures show it.

    Attributes
    ----------
    number : int
    score : float
        What the sweep minimises, of the inner folds.
    rounds, sent : int
        Rounds, and bytes of weights over all labs.
    """

    number: int
    score: float
    rounds: int
    sent: int


def history_figure(tried: Sequence[Tried], title: str) -> str:
    """Draw the error of each trial in their order, and the best so far."""
    label = "the error of each trial, and the best so far"
    with style(label):
        figure, axes = canvas()
        numbers = [one.number + 1 for one in tried]
        scores = np.array([one.score for one in tried])
        _points(axes, numbers, scores)
        axes.step(numbers, np.minimum.accumulate(scores), where="post", color=INK)
        axes.set(xlabel="trial", ylabel=title, title="the search")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        return svg_of(figure, label)


def importance_figure(importances: Mapping[str, float]) -> str:
    """Draw how much of what differs between good trials and others each key accounts for."""
    label = "how much each key mattered"
    names = sorted(importances, key=lambda name: importances[name])
    with style(label):
        figure, axes = canvas(height=1.2 + 0.3 * len(names))
        axes.barh(range(len(names)), [100 * importances[name] for name in names], color=BLUE)
        axes.set_yticks(range(len(names)), [short(name) for name in names])
        axes.set(xlabel="importance (%)", title="what mattered")
        return svg_of(figure, label)


def cost_figure(tried: Sequence[Tried], title: str, *, of_bytes: bool) -> str | None:
    """Draw the error of each trial against what it costs; None where all cost the same."""
    costs = np.array([one.sent / 1e6 if of_bytes else one.rounds for one in tried])
    if len(set(costs.tolist())) < 2:
        return None
    what = "weights sent over all labs (MB)" if of_bytes else "rounds"
    label = f"error against {what}"
    scores = np.array([one.score for one in tried])
    with style(label):
        figure, axes = canvas()
        _points(axes, costs, scores)
        order = np.lexsort((scores, costs))
        best = np.minimum.accumulate(scores[order])
        axes.step(costs[order], best, where="post", color=INK)
        axes.set(xlabel=what, ylabel=title, title=f"accuracy against {what.partition(' over')[0]}")
        if costs.max() > 20 * costs.min():
            axes.set_xscale("log")
            # its own writes powers as formulas, which are turned off
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        return svg_of(figure, label)


def _points(axes: Axes, x: Sequence[int] | np.ndarray, scores: np.ndarray) -> None:
    limit = WORST_SHOWN * float(scores.min())
    inside = scores <= limit
    places = np.asarray(x)
    axes.plot(places[inside], scores[inside], "o", color=BLUE, markersize=4.5, alpha=0.8)
    axes.plot(places[~inside], np.full((~inside).sum(), limit), "^", color=VERMILION, markersize=5)
    low = min(0.97 * float(scores.min()), float(scores.min()) - 1e-12)
    high = float(scores[inside].max()) if inside.all() else limit
    axes.set_ylim(low, high + 0.06 * (high - low))
