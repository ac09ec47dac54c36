"""The whole sweep: which specimens each study sees, and which judge what it chose.

With one held-out fifth, as in a simulation, one study chooses on the rest, and its choice is tried
on that fifth. With outer folds each fold has a study of its own, which gives the honest error of
choosing like that, and a last one over all specimens chooses what is written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from client.lab import HELD_OUT_FOLDS
from client.specimens import Specimens
from common.errors import ConfigurationError, LabDataError
from common.metrics import ErrorSums
from simulation.consortium import Consortium
from simulation.experiment import folds_of_labs
from simulation.sweep.sampling import num_points
from simulation.sweep.settings import Sweep
from simulation.sweep.space import Space
from simulation.sweep.study import CHOSEN, OWN, Plan, Setting, Studied, Study
from simulation.sweep.trial import ABSENT, HELD_OUT, TRAINED_ON, Roles


@dataclass(frozen=True, kw_only=True, eq=False)
class Swept:
    """What came of a sweep.

    Attributes
    ----------
    setting : Setting
    studies : tuple of Studied
        The last one decides.
    """

    setting: Setting
    studies: tuple[Studied, ...]

    @property
    def deciding(self) -> Studied:
        """The study whose choice is written."""
        return self.studies[-1]

    @property
    def tested(self) -> tuple[Studied, ...]:
        """Studies whose choices were both tried on specimens that they never saw."""
        return tuple(
            study
            for study in self.studies
            if study.tested and not any(isinstance(found, str) for found in study.tested.values())
        )

    def predicted(self, which: str) -> list[np.ndarray]:
        """Return the outer predictions by the chosen settings, or by the file's own.

        Returns
        -------
        list of ndarray of shape (n_specimens, n_targets), in the targets' units
            One a lab; NaN where a specimen was not tried.
        """
        labs = self.setting.preparer.own.labs
        found = [np.full(lab.targets.shape, np.nan) for lab in labs]
        for study in self.tested:
            for target, values in zip(found, study.tested[which], strict=True):
                np.copyto(target, values, where=np.isfinite(values))
        return found

    def errors(self, which: str) -> ErrorSums:
        """Return the sums of the outer errors over all labs."""
        labs = self.setting.preparer.own.labs
        shift = self.setting.space.federation.target_shift
        first, *others = [
            ErrorSums.of(lab.targets, values, shift)
            for lab, values in zip(labs, self.predicted(which), strict=True)
        ]
        return sum(others, start=first)


def run_sweep(setting: Setting, on_trial: Callable[[], None] = lambda: None) -> Swept:
    """Run all studies of a sweep, or go on with them.

    Parameters
    ----------
    setting : Setting
    on_trial : callable
        Called after each trial and each test, `num_steps` times in all.

    Raises
    ------
    ConfigurationError
        If the labs have too few specimens for the folds, or no trial of a study could be scored.
    """
    plans = plans_of(setting.preparer.own, setting.sweep)
    studies = [Study(plan, setting, on_trial) for plan in plans]
    return Swept(setting=setting, studies=tuple(study.run() for study in studies))


def num_steps(sweep: Sweep, space: Space) -> int:
    """Return how many trials and tests a sweep has."""
    num_studies = 1 if sweep.folds is None else sweep.folds + 1
    return num_studies * num_points(space, sweep) + (sweep.folds or 1)


def plans_of(consortium: Consortium, sweep: Sweep) -> list[Plan]:
    """Return what each study sees, and what it is tested on.

    Raises
    ------
    ConfigurationError
        If a lab has fewer independent specimens than folds.
    """
    outer = _folds(consortium, sweep.folds or HELD_OUT_FOLDS, "folds")
    plans = []
    for fold in range(sweep.folds or 1):
        held_out = [of_each == fold for of_each in outer]
        name = "choice" if sweep.folds is None else f"fold {fold + 1}"
        plans.append(_plan(name, consortium, held_out, sweep))
    if sweep.folds is not None:
        nothing = [np.zeros(len(lab), dtype=bool) for lab in consortium.labs]
        plans.append(_plan("choice", consortium, nothing, sweep))
    return plans


def _plan(name: str, consortium: Consortium, held_out: list[np.ndarray], sweep: Sweep) -> Plan:
    seen = Consortium(
        federation=consortium.federation,
        labs=tuple(
            lab.take(~rows) for lab, rows in zip(consortium.labs, held_out, strict=True)
        ),
    )
    inner_folds = _folds(seen, sweep.inner_folds, "inner_folds")
    inner = tuple(
        tuple(
            _inner_roles(lab, rows, of_each == fold)
            for lab, rows, of_each in zip(consortium.labs, held_out, inner_folds, strict=True)
        )
        for fold in range(sweep.inner_folds)
    )
    outer: Roles = tuple(
        np.where(rows, HELD_OUT, TRAINED_ON).astype(np.int8) for rows in held_out
    )
    has_test = any(rows.any() for rows in held_out)
    return Plan(name=name, inner=inner, outer=outer if has_test else None)


def _inner_roles(lab: Specimens, absent: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    roles = np.full(len(lab), ABSENT, dtype=np.int8)
    roles[~absent] = np.where(held_out, HELD_OUT, TRAINED_ON)
    return roles


def _folds(consortium: Consortium, folds: int, key: str) -> list[np.ndarray]:
    try:
        return folds_of_labs(consortium, folds)
    except LabDataError as error:
        found = str(error).partition(";")[0]
        raise ConfigurationError(
            f"{found}, which a sweep asks for by {key} = {folds}; lower it, or leave the lab out"
        ) from error


__all__ = ["CHOSEN", "OWN", "Swept", "num_steps", "plans_of", "run_sweep"]
