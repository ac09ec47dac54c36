"""What all studies of a sweep share, and what comes of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from optuna.trial import FrozenTrial

from common.errors import ConfigurationError
from common.federation import Federation
from simulation.scenarios.scenario import Scenario
from simulation.sweep.plan import Plan
from simulation.sweep.preparing import Preparer
from simulation.sweep.settings import Sweep
from simulation.sweep.space import Space
from simulation.sweep.storage import Storage

CHOSEN, OWN = "chosen", "own"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all studies of a sweep share.

    Attributes
    ----------
    scenario : Scenario or None
        What befalls the labs in every trial.
    """

    sweep: Sweep
    space: Space
    preparer: Preparer
    storage: Storage
    engine: str
    scenario: Scenario | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Studied:
    """What came of a study.

    Attributes
    ----------
    plan : Plan
    trials : tuple of FrozenTrial
    chosen : FrozenTrial
        The one with the smallest error; of equal ones the first.
    federation : Federation
        With the chosen settings.
    tested : dict of str to list of ndarray of shape (n_specimens, n_targets)
        Predictions of the outer test by the chosen and the file's own settings, NaN elsewhere;
        empty where nothing is held out.
    untested : dict of str to str
        Why one of them predicts nothing.
    outer_scores : dict of str to float
        Of the same, what the sweep minimises; the spread is that of the study's own specimens.
    """

    plan: Plan
    trials: tuple[FrozenTrial, ...]
    chosen: FrozenTrial
    federation: Federation
    tested: dict[str, list[np.ndarray]]
    untested: dict[str, str]
    outer_scores: dict[str, float]


def best_of(trials: Sequence[FrozenTrial], study: str) -> FrozenTrial:
    """Return the trial with the smallest error.

    Raises
    ------
    ConfigurationError
        If none could be scored; says why the first could not.
    """
    scored = [trial for trial in trials if trial.value is not None]
    if not scored:
        raise ConfigurationError(
            f"{study}: none of {len(trials)} trials could be scored; the first one: "
            f"{trials[0].user_attrs.get('why')}"
        )
    return min(scored, key=lambda trial: trial.value if trial.value is not None else np.inf)
