"""Which settings the next trial tries: a pure function of the trials before it.

Trial k is drawn when all but the `processes` - 1 trials before it are known, whatever finished
first in truth, and from a seed of its own. So the same sweep file gives the same trials on any
machine, and a sweep that was killed goes on as if it had not been.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from common.seeds import seed_for
from simulation.sweep.settings import Sweep
from simulation.sweep.space import Params, Space

DIGITS = 4
"""Of a number that is drawn: a federation file is read by people."""


def suggest(
    space: Space, sweep: Sweep, study: str, known: Sequence[FrozenTrial | Params]
) -> Params:
    """Return the settings of the next trial of a study.

    Parameters
    ----------
    space : Space
    sweep : Sweep
    study : str
        Its name; studies draw apart from each other.
    known : sequence of FrozenTrial or Params
        The trials before this one, in order; of the last `processes` - 1, the settings count alone.

    Returns
    -------
    Params
    """
    number = len(known)
    if sweep.sampler == "grid":
        return next(itertools.islice(space.points(), number, None))
    own = space.own()
    if number == 0 and own is not None:
        return own
    told = max(0, number - sweep.processes + 1)
    memory = optuna.create_study(sampler=_sampler(sweep, seed_for(sweep.seed, study, number)))
    for place, trial in enumerate(known):
        params = trial.params if isinstance(trial, FrozenTrial) else trial
        is_told = place < told and isinstance(trial, FrozenTrial)
        memory.add_trial(trial if is_told else _running(space, params))  # type: ignore[arg-type]
    asked = memory.ask()
    drawn: Params = {}
    for key in space.search:
        if space.is_active(key, drawn):
            drawn[key] = _draw(asked, space, key)
    return drawn


def num_points(space: Space, sweep: Sweep) -> int:
    """Return how many trials each study has."""
    return sum(1 for _ in space.points()) if sweep.sampler == "grid" else sweep.num_trials


def _sampler(sweep: Sweep, seed: int) -> BaseSampler:
    if sweep.sampler == "random":
        return RandomSampler(seed=seed % 2**32)
    return TPESampler(seed=seed % 2**32)


def _running(space: Space, params: Params) -> FrozenTrial:
    distributions = {key: space.distribution(key) for key in params}
    return create_trial(state=TrialState.RUNNING, params=params, distributions=distributions)


def _draw(trial: Trial, space: Space, key: str) -> int | float | str:
    found = space.distribution(key)
    if isinstance(found, FloatDistribution):
        drawn = trial.suggest_float(key, found.low, found.high, log=found.log)
        return min(max(float(f"{drawn:.{DIGITS}g}"), found.low), found.high)
    if isinstance(found, IntDistribution):
        return trial.suggest_int(key, found.low, found.high, log=found.log)
    return str(trial.suggest_categorical(key, list(space.search[key].labels)))
