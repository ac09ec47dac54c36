"""The report of a sweep: what was chosen, what it is worth, and how it was found."""

from __future__ import annotations

from collections.abc import Sequence

from common.report.blocks import Block, Section, Table, Words, drawn, number
from common.report.drawing import spoken
from common.report.opening import head_of, targets_of
from common.report.page import R2_MEANING, RMSE_MEANING, render_sections
from common.units import in_brackets
from simulation.sweep.figures import Tried, cost_figure, history_figure, importance_figure
from simulation.sweep.nested import Swept
from simulation.sweep.outcome import CHOSEN, OWN, Studied
from simulation.sweep.report import (
    best_trials,
    closing_sentence,
    described,
    importances,
    score_name,
    shown,
    unscored,
    value_in,
)
from simulation.sweep.worth import worths

_WORDS = {
    "own": "the settings of the federation file that the sweep began with",
    "inner folds": "specimens that settings were compared on; what was best there flatters itself",
    "outer": "specimens that were held out from every choice: what the settings are worth",
    "RMSE / spread": "RMSE by the target's standard deviation, a mean over targets: 1 is as good "
    "as predicting the mean",
    "R²": R2_MEANING,
    "RMSE": RMSE_MEANING,
}


def sweep_page(swept: Swept) -> str:
    """Return the page."""
    federation = swept.deciding.federation
    head = head_of(
        federation,
        title=f"Settings for {federation.name}",
        verdict=closing_sentence(swept),
    )
    found = [_chosen(swept), _worth(swept), _search(swept), _cost(swept), _notes(swept)]
    return render_sections(
        head,
        [section for section in found if section.blocks],
        kind="of a sweep",
        targets=targets_of(federation),
        words=_WORDS,
        is_private=False,
    )


def _chosen(swept: Swept) -> Section:
    federations = (swept.setting.space.federation, swept.deciding.federation)
    rows = tuple(
        (key, *(shown(value_in(federation, key)) for federation in federations))
        for key in swept.setting.space.search
    )
    table = Table(caption="settings", headings=("key", "own", "chosen"), rows=rows, num_text=3)
    lead = "The file federation.toml beside this page holds the chosen settings and all others."
    return Section(anchor="chosen", title="What was chosen", lead=lead, blocks=(table,))


def _worth(swept: Swept) -> Section:
    blocks: list[Block] = []
    for one in worths(swept):
        unit = in_brackets(one.unit)
        ends = [number(end, sign=True, like=one.own["mae"]) for end in (one.low, one.high)]
        rows = tuple(
            (
                label,
                str(row["num_specimens"]),
                "–" if row["r2"] is None else f"{row['r2']:.3f}".replace("-", "−"),
                number(row["rmse"]),
                number(row["mae"]),
                between,
            )
            for label, row, between in (
                ("own", one.own, "–"),
                ("chosen", one.chosen, " to ".join(ends)),
            )
        )
        headings = ("settings", "n", "R²", f"RMSE{unit}", f"MAE{unit}", "smaller by, 95 %")
        table = Table(
            caption=spoken(one.target), headings=headings, rows=rows, strong=frozenset({1})
        )
        blocks.append(table)
    if swept.tested:
        blocks.append(_studies_table(swept))
    lead = (
        "Specimens that no choice saw, each tried once. The interval is a paired bootstrap's, of "
        "how much smaller the mean absolute error is. The score on inner folds is what the choice "
        "was made by, and flatters it."
    )
    return Section(anchor="worth", title="What it is worth", lead=lead, blocks=tuple(blocks))


def _studies_table(swept: Swept) -> Table:
    scores = [(study, *_outer_scores(swept, study)) for study in swept.tested]
    return Table(
        caption=f"{score_name(swept)} of each study",
        headings=("study", "chosen, inner folds", "chosen, outer", "own, outer"),
        rows=tuple(
            (study.plan.name, number(study.chosen.value), number(chosen), number(own))
            for study, chosen, own in scores
        ),
    )


def _outer_scores(swept: Swept, study: Studied) -> tuple[float, float]:
    chosen, own = (study.outer_scores[which] for which in (CHOSEN, OWN))
    return chosen, own


def _search(swept: Swept) -> Section:
    study, name = swept.deciding, score_name(swept)
    blocks = drawn(
        history_figure(_tried(study), name),
        "Each mark is a trial, the line the best so far. A triangle at the edge is a trial far "
        "above.",
    )
    mattered = importances(study)
    if mattered:
        caption = (
            "How much of what sets good trials apart each key accounts for (PED-ANOVA); among the "
            "values that were tried."
        )
        blocks += drawn(importance_figure(mattered), caption)
    rows = tuple(
        (
            described(swept, trial),
            str(trial.number + 1),
            number(trial.value),
            str(trial.user_attrs["rounds"]),
            number(trial.user_attrs["bytes"] / 1e6),
        )
        for trial in best_trials(study)
    )
    table = Table(
        caption=f"the best of {len(study.trials)} trials",
        headings=("settings", "trial", name, "rounds", "MB sent"),
        rows=rows,
        strong=frozenset({0}),
    )
    return Section(anchor="search", title="How it was found", lead="", blocks=(*blocks, table))


def _cost(swept: Swept) -> Section:
    tried, name = _tried(swept.deciding), score_name(swept)
    caption = "The line is the best error for so much or less."
    blocks: list[Block] = []
    for of_bytes in (False, True):
        blocks += drawn(cost_figure(tried, name, of_bytes=of_bytes), caption)
    if not blocks:
        one = tried[0]
        text = f"All trials cost the same: {one.rounds} rounds and {number(one.sent / 1e6)} MB."
        blocks.append(Words(points=(text,)))
    lead = (
        "Counted is the head's weights, down to every lab and up again, each round; statistics, "
        "sums of products and metrics, which every run sends once, are not."
    )
    return Section(anchor="cost", title="What accuracy costs", lead=lead, blocks=tuple(blocks))


def _notes(swept: Swept) -> Section:
    points: list[str] = []
    for study in swept.studies:
        for why, count in unscored(study).items():
            points.append(f"{study.plan.name}: {count} trials have no score: {why}")
        for which, why in study.untested.items():
            points.append(f"{study.plan.name}: the {which} settings were not tested: {why}")
    blocks: Sequence[Block] = (Words(points=tuple(points)),) if points else ()
    return Section(anchor="notes", title="What did not work", lead="", blocks=tuple(blocks))


def _tried(study: Studied) -> list[Tried]:
    return [
        Tried(
            number=trial.number,
            score=trial.value,
            rounds=trial.user_attrs["rounds"],
            sent=trial.user_attrs["bytes"],
        )
        for trial in study.trials
        if trial.value is not None
    ]
