"""What a sweep leaves behind: sweep.json, trials.csv, federation.toml, report.html, and tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import tomli_w
from optuna.trial import FrozenTrial
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.federation import FILE_NAME, Federation
from common.files import write_atomically
from common.spreadsheet import as_text
from common.units import symbol
from simulation.report import RECORDED_VERSIONS
from simulation.summary import titled_table
from simulation.sweep.nested import Swept
from simulation.sweep.outcome import Studied
from simulation.sweep.worth import Worth, sentence, worths

RESULT = "sweep.json"
TRIALS = "trials.csv"
REPORT = "report.html"

MOST_SHOWN = 10
STATES = {"COMPLETE": "scored", "PRUNED": "cannot be trained", "FAIL": "failed"}


def write_sweep(swept: Swept, folder: Path) -> None:
    """Write the run's folder; ``sweep.json`` comes last, and is there only when all is."""
    from simulation.sweep.page import sweep_page

    shared = swept.deciding.federation.to_share()
    write_atomically(folder / FILE_NAME, tomli_w.dumps(shared))
    write_atomically(folder / TRIALS, trials_csv(swept))
    write_atomically(folder / REPORT, sweep_page(swept))
    record = json.dumps(sweep_record(swept), indent=2, allow_nan=False)
    write_atomically(folder / RESULT, record + "\n")


def sweep_record(swept: Swept) -> dict[str, Any]:
    """Return the content of ``sweep.json``."""
    setting = swept.setting
    return {
        "federation": setting.space.federation.name,
        "own_fingerprint": setting.space.federation.fingerprint(),
        "chosen_fingerprint": swept.deciding.federation.fingerprint(),
        "chosen": values_of(swept, swept.deciding.chosen),
        "score": score_name(swept),
        "engine": setting.engine,
        "sweep": setting.sweep.model_dump(mode="json", exclude_none=True),
        "versions": {name: version(name) for name in (*RECORDED_VERSIONS, "optuna")},
        "sentence": closing_sentence(swept),
        "worth": [asdict(one) | {"share": one.share} for one in worths(swept)],
        "importances": importances(swept.deciding),
        "studies": [
            {
                "name": study.plan.name,
                "chosen": values_of(swept, study.chosen),
                "trial": study.chosen.number,
                "inner_score": study.chosen.value,
                "untested": study.untested,
                "trials": [_trial_record(swept, trial) for trial in study.trials],
            }
            for study in swept.studies
        ],
    }


def trials_csv(swept: Swept) -> str:
    """Return one row a trial: its study, score, values, costs, and why it has no score."""
    targets = swept.setting.space.federation.targets
    rows = []
    for study in swept.studies:
        for trial in study.trials:
            values = values_of(swept, trial)
            facts = trial.user_attrs
            rmse = facts.get("rmse") or [None] * len(targets)
            row = {"study": study.plan.name, "trial": trial.number}
            row |= {"state": STATES[trial.state.name], "score": trial.value}
            row |= {key: shown(values.get(key)) for key in swept.setting.space.search}
            row |= {f"{name} rmse ({one.unit})": error
                    for (name, one), error in zip(targets.items(), rmse, strict=True)}  # fmt: skip
            row |= {name: facts.get(name) for name in ("rounds", "bytes", "seconds")}
            rows.append(row | {"why": as_text(str(facts.get("why", "")))})
    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")


def values_of(swept: Swept, trial: FrozenTrial) -> dict[str, Any]:
    """Return what a trial set each key to, as the federation file gets it."""
    search = swept.setting.space.search
    return {key: search[key].value_of(kept) for key, kept in trial.params.items()}


def value_in(federation: Federation, key: str) -> Any:
    """Return what a key is in a federation."""
    value: Any = federation.model_dump(mode="json")
    for name in key.split("."):
        value = value[name]
    return value


def described(swept: Swept, trial: FrozenTrial) -> str:
    """Return what a trial set, in one line; keys by their last part where that says which."""
    keys = list(swept.setting.space.search)
    last = [key.rpartition(".")[2] for key in keys]
    names = {key: name if last.count(name) == 1 else key
             for key, name in zip(keys, last, strict=True)}  # fmt: skip
    return ", ".join(
        f"{names[key]} {shown(value)}" for key, value in values_of(swept, trial).items()
    )


def shown(value: Any) -> str:
    """Return a value as a person reads it.

    Examples
    --------
    >>> shown(0.00034871), shown([64, 32]), shown("fedavg"), shown(None), shown(True)
    ('0.0003487', '[64, 32]', 'fedavg', '–', 'true')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    return as_text(value) if isinstance(value, str) else str(value)


def score_name(swept: Swept) -> str:
    """Say what is minimised."""
    name = swept.setting.sweep.target
    if name is None:
        return "RMSE / spread"
    unit = symbol(swept.setting.space.federation.targets[name].unit)
    return f"RMSE ({unit})" if unit else "RMSE"


def importances(study: Studied) -> dict[str, float]:
    """Return how much each key mattered (PED-ANOVA, Watanabe et al. 2023, IJCAI).

    Empty where there are too few scored trials to say so, or all scored alike.
    """
    scored = [trial for trial in study.trials if trial.value is not None]
    if len(scored) < 4 or len({trial.value for trial in scored}) < 2:
        return {}
    memory = optuna.create_study()
    memory.add_trials(scored)
    found = optuna.importance.get_param_importances(memory)
    finite = {key: float(value) for key, value in found.items() if np.isfinite(value)}
    return finite if any(finite.values()) else {}


def best_trials(study: Studied) -> list[FrozenTrial]:
    """Return the best trials of a study, best first, each of their settings once."""
    scored = [trial for trial in study.trials if trial.value is not None]
    ordered = sorted(scored, key=lambda trial: (trial.value, trial.number))
    first = {str(sorted(trial.params.items())): trial for trial in reversed(ordered)}
    return [trial for trial in ordered if trial in first.values()][:MOST_SHOWN]


def closing_sentence(swept: Swept) -> str:
    """Say whether the sweep was worth it."""
    own = swept.setting.space.federation.fingerprint()
    is_same = all(study.federation.fingerprint() == own for study in swept.studies)
    return sentence(worths(swept), is_same=is_same)


def unscored(study: Studied) -> dict[str, int]:
    """Return why trials have no score, and how many share the reason."""
    found: dict[str, int] = {}
    for trial in study.trials:
        if trial.value is None:
            why = str(trial.user_attrs.get("why"))
            found[why] = found.get(why, 0) + 1
    return found


def print_sweep(swept: Swept, console: Console) -> None:
    """Print the best trials, what was chosen, what that was worth, and one plain sentence."""
    console.print(_trials_table(swept), "")
    for why, count in unscored(swept.deciding).items():
        console.print(Text(f"{count} trials without a score: {why}", "red"))
    found = worths(swept)
    if found:
        console.print(_worth_table(found), "")
    console.print(Text(closing_sentence(swept), "bold"))


def _trials_table(swept: Swept) -> Table:
    study = swept.deciding
    table = titled_table(f"the best of {len(study.trials)} trials, on inner folds")
    table.add_column("trial", justify="right")
    table.add_column("settings", overflow="fold")
    for heading in (score_name(swept), "rounds", "MB sent"):
        table.add_column(heading, justify="right", no_wrap=True)
    for trial in best_trials(study):
        row = [str(trial.number + 1), described(swept, trial), f"{trial.value:#.4g}"]
        row += [str(trial.user_attrs["rounds"]), f"{trial.user_attrs['bytes'] / 1e6:#.3g}"]
        style = "bold" if trial.number == study.chosen.number else ""
        table.add_row(*map(Text, row), style=style)
    return table


def _worth_table(found: Sequence[Worth]) -> Table:
    table = titled_table("on specimens that no choice saw")
    table.add_column("target", overflow="fold")
    # two lines leave the target its room in 80 columns
    headings = ("n", "own\nMAE", "chosen\nMAE", "own\nR²", "chosen\nR²", "smaller\nby")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for one in found:
        unit = f" ({symbol(one.unit)})" if symbol(one.unit) else ""
        r2 = ["–" if row["r2"] is None else f"{row['r2']:.3f}" for row in (one.own, one.chosen)]
        mae = [f"{row['mae']:#.3g}" for row in (one.own, one.chosen)]
        row = [f"{one.target}{unit}", str(one.own["num_specimens"]), *mae, *r2]
        table.add_row(*map(Text, row), f"{100 * one.share:+.0f} %")
    return table


def _trial_record(swept: Swept, trial: FrozenTrial) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "state": STATES[trial.state.name],
        "score": trial.value,
        "values": values_of(swept, trial),
        **trial.user_attrs,
    }
