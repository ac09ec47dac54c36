"""The whole sweep: which specimens each study sees, and which judge what it chose.

With one held-out fifth, as in a simulation, one study chooses on the rest, and its choice is tried
on that fifth. With outer folds each fold has a study of its own, which gives the honest error of
choosing like that, and a last one over all specimens chooses what is written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from common.metrics import ErrorSums
from simulation.sweep.outcome import Setting, Studied
from simulation.sweep.plan import plans_of
from simulation.sweep.sampling import num_points
from simulation.sweep.settings import Sweep
from simulation.sweep.space import Space
from simulation.sweep.study import Study


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
        return tuple(study for study in self.studies if len(study.tested) == 2)

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
        Called after each of the trials and tests that `num_steps` counts.

    Raises
    ------
    ConfigurationError
        If the labs have too few specimens for the folds, or no trial of a study could be scored.
    """
    plans = plans_of(setting.preparer.own, setting.sweep)
    studies = [Study(plan, setting, on_trial) for plan in plans]
    return Swept(setting=setting, studies=tuple(study.run() for study in studies))


def num_steps(sweep: Sweep, space: Space) -> tuple[int, int]:
    """Return how many trials and how many tests of what they chose a sweep has."""
    num_studies = 1 if sweep.folds is None else sweep.folds + 1
    return num_studies * num_points(space, sweep), sweep.folds or 1
