"""What the report says of causes: features, labs, rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from common.report.blocks import Block, Section, Table, drawn, number
from common.report.content import (
    Evidence,
    Importance,
    Report,
    SimulationReport,
    Target,
    TrainingRound,
)
from common.report.fit_figures import training_figure
from common.report.reason_figures import (
    contribution_figure,
    dependence_figure,
    importance_figure,
)
from common.report.sections import titled

MOST_ROUNDS_NAMED = 8


def why(evidence: Evidence) -> Section:
    """Say what predictions hang on, and which labs' presence helps."""
    blocks: list[Block] = []
    for target in evidence.targets:
        bars = [one for one in evidence.importances if one.target == target.name]
        if len(bars) == 1:
            blocks.append(_one_importance(bars[0], target))
        elif bars:
            caption = "The longer the bar, the more predictions hang on this feature."
            blocks += drawn(importance_figure(bars, target), caption)
        for curve in evidence.dependences:
            if curve.target == target.name:
                blocks += drawn(dependence_figure(curve, target), "Mean prediction, all else kept.")
        shares = [one for one in evidence.contributions if one.target == target.name]
        if shares:
            caption = "What each lab adds to the others (Shapley value)."
            if any(one.is_flagged for one in shares):
                caption += " Hatched: without this lab, the others would do better."
            blocks += drawn(contribution_figure(shares, target), caption)
    lead = "What the model looks at. It shows what goes together, which need not be a cause."
    return Section(anchor="why", title="Why", lead=lead, blocks=tuple(blocks))


def _one_importance(found: Importance, target: Target) -> Table:
    """Return as a table what is no picture: how much hangs on all that there is."""
    return Table(
        caption=titled(target),
        headings=("dealt out anew among specimens", "mean absolute error grows by", "±"),
        rows=((found.feature, number(found.increase), number(found.spread, like=found.increase)),),
    )


def training(report: Report) -> Section:
    """Show the loss, and who was missing when, and why."""
    rounds = report.evidence.rounds
    # of one round, or of losses that nobody tells, there is no curve
    has_curve = len({one.server_round for one in rounds if math.isfinite(one.loss)}) > 1
    blocks: list[Block] = drawn(training_figure(rounds)) if has_curve else []
    missing = _missing(rounds)
    if missing:
        blocks.append(
            Table(
                caption="labs that gave no update",
                headings=("lab", "rounds", "reason"),
                rows=missing,
                num_text=3,
            )
        )
    if report.head.excluded:
        blocks.append(
            Table(
                caption="labs that were put out of the run",
                headings=("lab", "reason"),
                rows=tuple(report.head.excluded.items()),
                num_text=2,
            )
        )
    lead = "The loss is to fall and then to level off."
    return Section(
        anchor="training", title="How training went", lead=lead if has_curve else "",
        blocks=tuple(blocks),
    )  # fmt: skip


def happened(report: Report) -> Section:
    """List what the scenario of a simulation let happen."""
    rows = report.happened if isinstance(report, SimulationReport) else ()
    blocks: list[Block] = []
    if rows:
        table = Table(
            caption="what the scenario let happen",
            headings=("lab", "what", "rounds", "in words"),
            rows=tuple((row.lab, row.kind, row.rounds, row.words) for row in rows),
            num_text=4,
        )
        blocks.append(table)
    lead = report.virtual_time if isinstance(report, SimulationReport) else ""
    return Section(anchor="happened", title="What happened", lead=lead, blocks=tuple(blocks))


def _missing(rounds: Sequence[TrainingRound]) -> tuple[tuple[str, ...], ...]:
    when: dict[tuple[str, str], list[int]] = {}
    for one in rounds:
        for lab, reason in one.missing.items():
            when.setdefault((lab, reason), []).append(one.server_round)
    return tuple((lab, _listed(found), reason) for (lab, reason), found in sorted(when.items()))


def _listed(found: Sequence[int]) -> str:
    named = sorted(set(found))
    text = ", ".join(map(str, named[:MOST_ROUNDS_NAMED]))
    further = len(named) - MOST_ROUNDS_NAMED
    return f"{text} and {further} more" if further > 0 else text
