"""The report of a sweep: what was chosen, what it is worth, and how it was found."""

from __future__ import annotations

from collections.abc import Sequence

from common.report.blocks import Block, Section, Table, Words, drawn, number, percent
from common.report.drawing import in_brackets, spoken
from common.report.opening import head_of, targets_of
from common.report.page import R2_MEANING, RMSE_MEANING, render_sections
from simulation.sweep.figures import Tried, cost_figure, history_figure, importance_figure
from simulation.sweep.nested import CHOSEN, OWN, Swept
from simulation.sweep.report import (
    best_trials,
    closing_sentence,
    importances,
    own_value,
    score_name,
    shown,
    unscored,
    values_of,
)
from simulation.sweep.study import Studied
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
    values = values_of(swept, swept.deciding.chosen)
    rows = tuple(
        (key, shown(own_value(swept, key)), shown(values.get(key)))
        for key in swept.setting.space.search
    )
    table = Table(caption="settings", headings=("key", "own", "chosen"), rows=rows, num_text=3)
    lead = "The file federation.toml beside this page holds the chosen settings and all others."
    return Section(anchor="chosen", title="What was chosen", lead=lead, blocks=(table,))


def _worth(swept: Swept) -> Section:
    blocks: list[Block] = []
    for one in worths(swept):
        rows = tuple(
            (
                label,
                str(row["num_specimens"]),
                "–" if row["r2"] is None else f"{row['r2']:.3f}".replace("-", "−"),
                number(row["mae"]),
                number(row["rmse"]),
            )
            for label, row in (("own", one.own), ("chosen", one.chosen))
        )
        unit = in_brackets(one.unit)
        table = Table(
            caption=spoken(one.target),
            headings=("settings", "specimens", "R²", f"MAE{unit}", f"RMSE{unit}"),
            rows=rows,
            strong=frozenset({1}),
        )
        blocks.append(table)
        if one.low is not None and one.high is not None:
            text = (
                f"{spoken(one.target)}: the chosen settings' mean squared error is smaller by "
                f"{percent(one.low)} to {percent(one.high)} (95 %, paired bootstrap)."
            ).replace("-", "−")
            blocks.append(Words(points=(text,)))
    if swept.tested:
        blocks.append(_studies_table(swept))
    lead = (
        "Specimens that no choice saw, each tried once. The score on inner folds is what the "
        "choice was made by, and flatters it."
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
    keys = tuple(swept.setting.space.search)
    rows = tuple(
        (
            str(trial.number + 1),
            *(shown(values_of(swept, trial).get(key)) for key in keys),
            number(trial.value),
            str(trial.user_attrs["rounds"]),
            number(trial.user_attrs["bytes"] / 1e6),
        )
        for trial in best_trials(study)
    )
    table = Table(
        caption=f"the best of {len(study.trials)} trials",
        headings=("trial", *keys, name, "rounds", "MB sent"),
        rows=rows,
        num_text=1 + len(keys),
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
