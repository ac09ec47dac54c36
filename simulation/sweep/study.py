"""One study: trials by inner folds on some specimens, and a test on others, once, at its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.trial import FrozenTrial, TrialState, create_trial

from common.errors import ConfigurationError, CrossplyError, WorkerError
from common.federation import Federation
from common.metrics import ErrorSums
from common.units import seconds
from simulation.sweep.preparing import Preparer
from simulation.sweep.processes import Answer, Failure, Running, take_finished
from simulation.sweep.sampling import num_points, suggest
from simulation.sweep.settings import Sweep
from simulation.sweep.space import Params, Space
from simulation.sweep.storage import Storage
from simulation.sweep.trial import HELD_OUT, Job, Roles, bytes_sent

CHOSEN, OWN = "chosen", "own"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study tries its trials on.

    Attributes
    ----------
    name : str
    inner : tuple of Roles
        A trial is trained once for each; they hold out every specimen of the study once.
    outer : Roles or None
        Trained on all of the study's specimens, tried on those that it never saw.
    """

    name: str
    inner: tuple[Roles, ...]
    outer: Roles | None


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all studies of a sweep share."""

    sweep: Sweep
    space: Space
    preparer: Preparer
    storage: Storage
    engine: str


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
    tested : dict of str to (list of ndarray of shape (n_specimens, n_targets)) or str
        Predictions of the outer test by the chosen and the file's own settings, NaN elsewhere, or
        why there are none. Empty where nothing is held out.
    """

    plan: Plan
    trials: tuple[FrozenTrial, ...]
    chosen: FrozenTrial
    federation: Federation
    tested: dict[str, list[np.ndarray] | str]


@dataclass(kw_only=True)
class _Asked:
    """A trial that is under way: in a process, or known already because another was the same."""

    params: Params
    federation: Federation | None
    running: Running | None
    why: str = ""


class Study:
    """Runs one study, or goes on with it.

    Parameters
    ----------
    plan : Plan
    setting : Setting
    on_trial : callable
        Called after each trial and each test.
    """

    def __init__(self, plan: Plan, setting: Setting, on_trial: Callable[[], None]) -> None:
        self._plan, self._setting, self._on_trial = plan, setting, on_trial
        self._asked: deque[_Asked] = deque()
        self._scale = Scale.of(setting, plan)

    def run(self) -> Studied:
        """Run the trials that are not finished yet, and the test.

        Raises
        ------
        ConfigurationError
            If no trial could be scored.
        WorkerError
            If the process of a test died.
        StateError
            If a trial cannot be kept.
        """
        try:
            finished = self._finish_trials()
            chosen = best_of(finished, self._plan.name)
            federation = self._setting.space.federation_of(chosen.params)
            return Studied(
                plan=self._plan,
                trials=tuple(finished),
                chosen=chosen,
                federation=federation,
                tested=self._test(federation) if self._plan.outer else {},
            )
        finally:
            for asked in self._asked:
                if asked.running is not None:
                    asked.running.end()

    def _finish_trials(self) -> list[FrozenTrial]:
        setting, name = self._setting, self._plan.name
        finished = setting.storage.finished(name)
        for _ in finished:
            self._on_trial()
        total = num_points(setting.space, setting.sweep)
        while len(finished) < total:
            number = len(finished) + len(self._asked)
            if number < total and len(self._asked) < setting.sweep.processes:
                known = [*finished, *(asked.params for asked in self._asked)]
                self._asked.append(self._begin(suggest(setting.space, setting.sweep, name, known)))
                continue
            trial = self._finish_oldest(finished)
            setting.storage.add(name, trial)
            self._asked.popleft()
            finished.append(trial)
            self._on_trial()
        return finished

    def _begin(self, params: Params) -> _Asked:
        try:
            federation = self._setting.space.federation_of(params)
            running = self._start(federation, self._plan.inner)
        except CrossplyError as error:
            return _Asked(params=params, federation=None, running=None, why=str(error))
        return _Asked(params=params, federation=federation, running=running)

    def _start(self, federation: Federation, runs: tuple[Roles, ...]) -> Running:
        setting = self._setting
        job = Job(
            federation=federation,
            prepared=setting.preparer.prepared(federation),
            runs=runs,
            engine=setting.engine,
        )
        return Running(job, seconds(setting.sweep.trial_deadline))

    def _finish_oldest(self, finished: Sequence[FrozenTrial]) -> FrozenTrial:
        """Wait for the trial that was asked for first: in order, runs repeat themselves."""
        oldest = self._asked[0]
        if oldest.running is None or oldest.federation is None:
            return self._trial(oldest, TrialState.PRUNED, None, why=oldest.why)
        answer = self._answer_of(oldest.running)
        facts = {
            "seconds": round(answer.seconds, 3),
            "rounds": oldest.federation.training.rounds,
            "bytes": bytes_sent(oldest.federation, len(self._setting.preparer.own.labs)),
        }
        if isinstance(answer.found, Failure):
            # what these settings bring about counts as worse than all; what befell them does not
            state = TrialState.PRUNED if answer.found.is_lasting else TrialState.FAIL
            return self._trial(oldest, state, None, why=answer.found.why, **facts)
        rmse = self._scale.rmse(answer.found)
        if not np.isfinite(rmse[self._scale.counted]).all():
            return self._trial(oldest, TrialState.PRUNED, None, why="predicts nothing", **facts)
        facts["rmse"] = [float(value) if np.isfinite(value) else None for value in rmse]
        return self._trial(oldest, TrialState.COMPLETE, self._scale.score(rmse), **facts)

    def _answer_of(self, running: Running) -> Answer:
        others = [asked.running for asked in self._asked if asked.running is not None]
        while running.answer is None:
            take_finished([running, *(one for one in others if one is not running)])
        return running.answer

    def _trial(
        self, asked: _Asked, state: TrialState, value: float | None, **facts: object
    ) -> FrozenTrial:
        space = self._setting.space
        return create_trial(
            state=state,
            value=value,
            params=dict(asked.params),
            distributions={key: space.distribution(key) for key in asked.params},
            user_attrs=facts,
        )

    def _test(self, federation: Federation) -> dict[str, list[np.ndarray] | str]:
        """Train the chosen and the file's own settings once on all, and try them on the rest."""
        storage, name = self._setting.storage, self._plan.name
        kept = storage.tested(name)
        if kept is None:
            own = self._setting.space.federation
            kept = {CHOSEN: self._tried(federation)}
            same = own.fingerprint() == federation.fingerprint()
            kept[OWN] = kept[CHOSEN] if same else self._tried(own)
            storage.keep_tested(name, kept)
        self._on_trial()
        return {
            which: found if isinstance(found, str) else [np.array(values) for values in found]
            for which, found in kept.items()
        }

    def _tried(self, federation: Federation) -> list[list[list[float]]] | str:
        assert self._plan.outer is not None, "a study without held-out specimens is not tested"
        asked = _Asked(
            params={}, federation=federation, running=self._start(federation, (self._plan.outer,))
        )
        self._asked.append(asked)
        assert asked.running is not None, "it was just started"
        answer = self._answer_of(asked.running)
        self._asked.remove(asked)
        if not isinstance(answer.found, Failure):
            return [values.tolist() for values in answer.found]
        if answer.found.is_lasting:
            return answer.found.why
        raise WorkerError(
            f"the test of {self._plan.name}: {answer.found.why}; run the same command again, it "
            "goes on from here"
        )


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How predictions for the inner held-out specimens of a study become one number.

    Attributes
    ----------
    measured : tuple of ndarray of shape (n_specimens, n_targets)
        One a lab, in the targets' units; NaN for specimens that the study never sees.
    spread : ndarray of shape (n_targets,)
        Standard deviation of each target over them: what predicting their mean would err by.
    counted : ndarray of shape (n_targets,), bool
        Targets that count: the named one, or all that a lab may share.
    is_one : bool
        Whether a target was named: its RMSE is the score, in its unit.
    """

    measured: tuple[np.ndarray, ...]
    spread: np.ndarray
    counted: np.ndarray
    is_one: bool

    @classmethod
    def of(cls, setting: Setting, plan: Plan) -> Scale:
        """Return the scale of a study, from the specimens that it may see alone.

        Raises
        ------
        ConfigurationError
            If the target that was named varies nowhere, or no lab may share it.
        """
        federation, labs = setting.space.federation, setting.preparer.own.labs
        seen = [np.any([roles[i] == HELD_OUT for roles in plan.inner], axis=0)
                for i in range(len(labs))]  # fmt: skip
        measured = tuple(
            np.where(rows[:, None], lab.targets, np.nan)
            for lab, rows in zip(labs, seen, strict=True)
        )
        pooled = np.concatenate(measured)
        known = np.isfinite(pooled)
        counts = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, pooled, 0.0).sum(axis=0) / counts
        spread = np.sqrt((np.where(known, pooled - mean, 0.0) ** 2).sum(axis=0) / counts)
        least = federation.privacy.min_specimens
        shared = np.any([np.isfinite(lab.targets).sum(axis=0) >= least for lab in labs], axis=0)
        asked = [setting.sweep.target in (None, name) for name in federation.targets]
        counted = shared & (spread > 0) & np.array(asked)
        if not counted.any():
            which = setting.sweep.target or "any target"
            raise ConfigurationError(
                f"no lab has {least} values of {which} that differ; a sweep has nothing to compare"
            )
        return cls(
            measured=measured,
            spread=spread,
            counted=counted,
            is_one=setting.sweep.target is not None,
        )

    def rmse(self, predicted: Sequence[np.ndarray]) -> np.ndarray:
        """Return the RMSE of each target over the specimens of all labs, in its unit.

        Returns
        -------
        ndarray of shape (n_targets,)
            NaN where nothing was predicted.
        """
        nothing = np.zeros(len(self.spread))
        first, *others = [
            ErrorSums.of(measured, values, nothing)
            for measured, values in zip(self.measured, predicted, strict=True)
        ]
        total = sum(others, start=first)
        return np.sqrt(np.where(total.count > 0, total.squared, np.nan) / np.maximum(total.count, 1))

    def score(self, rmse: np.ndarray) -> float:
        """Return what a sweep minimises."""
        if self.is_one:
            return float(rmse[self.counted][0])
        return float((rmse[self.counted] / self.spread[self.counted]).mean())


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
