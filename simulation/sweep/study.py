"""One study: trials by inner folds on some specimens, and a test on others, once, at its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState, create_trial

from common.errors import CrossplyError, WorkerError, shortened
from common.federation import Federation
from common.units import seconds
from simulation.sweep.outcome import CHOSEN, OWN, Setting, Studied, best_of
from simulation.sweep.plan import Plan
from simulation.sweep.processes import Answer, Failure, Running, take_finished
from simulation.sweep.sampling import num_points, suggest
from simulation.sweep.scale import Scale
from simulation.sweep.space import Params
from simulation.sweep.trial import Job, Roles, bytes_sent


@dataclass(kw_only=True)
class _Asked:
    """A trial that is under way: in a process, or waiting for another with the same settings."""

    params: Params
    federation: Federation | None
    running: Running | None = None
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
        # of each federation that was tried, the trial that tells of it
        self._told: dict[str, FrozenTrial] = {}
        self._scale = Scale.of(setting.preparer.own, plan.inner, setting.sweep.target)

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
            kept = self._test(federation) if self._plan.outer else {}
            tested = {
                which: [np.array(values) for values in found]
                for which, found in kept.items()
                if not isinstance(found, str)
            }
            return Studied(
                plan=self._plan,
                trials=tuple(finished),
                chosen=chosen,
                federation=federation,
                tested=tested,
                untested={which: why for which, why in kept.items() if isinstance(why, str)},
                outer_scores=self._outer_scores(tested),
            )
        finally:
            for asked in self._asked:
                if asked.running is not None:
                    asked.running.end()

    def _finish_trials(self) -> list[FrozenTrial]:
        setting, name = self._setting, self._plan.name
        finished = setting.storage.finished(name)
        for trial in finished:
            self._note(trial)
        total = num_points(setting.space, setting.sweep)
        while len(finished) < total:
            number = len(finished) + len(self._asked)
            if number < total and len(self._asked) < setting.sweep.processes:
                known: list[FrozenTrial | Params] = [*finished]
                known += [asked.params for asked in self._asked]
                self._asked.append(self._begin(suggest(setting.space, setting.sweep, name, known)))
                continue
            trial = self._finish_oldest()
            trial.number = len(finished)
            setting.storage.add(name, trial)
            self._asked.popleft()
            finished.append(trial)
            self._note(trial)
        return finished

    def _note(self, trial: FrozenTrial) -> None:
        # what befell a process tells nothing of the settings
        if trial.state is not TrialState.FAIL and "fingerprint" in trial.user_attrs:
            self._told.setdefault(trial.user_attrs["fingerprint"], trial)
        self._on_trial()

    def _begin(self, params: Params) -> _Asked:
        try:
            federation = self._setting.space.federation_of(params)
            asked = _Asked(params=params, federation=federation)
            before = [one.federation for one in self._asked]
            if federation not in before and federation.fingerprint() not in self._told:
                asked.running = self._start(federation, self._plan.inner)
        except CrossplyError as error:
            return _Asked(params=params, federation=None, why=shortened(str(error)))
        return asked

    def _start(self, federation: Federation, runs: tuple[Roles, ...]) -> Running:
        setting = self._setting
        job = Job(
            federation=federation,
            prepared=setting.preparer.prepared(federation),
            runs=runs,
            engine=setting.engine,
            scenario=setting.scenario,
        )
        return Running(job, seconds(setting.sweep.trial_deadline))

    def _finish_oldest(self) -> FrozenTrial:
        """Wait for the trial that was asked for first: in order, runs repeat themselves."""
        oldest = self._asked[0]
        federation = oldest.federation
        if federation is None:
            return self._trial(oldest, TrialState.PRUNED, None, why=oldest.why)
        twin = self._told.get(federation.fingerprint())
        if twin is not None:
            facts = twin.user_attrs | {"seconds": 0.0, "same_as": twin.number}
            return self._trial(oldest, twin.state, twin.value, **facts)
        running = oldest.running or self._start(federation, self._plan.inner)
        # one that the trial it waited for has told nothing of starts only now
        oldest.running = running
        return self._scored(oldest, federation, self._answer_of(running))

    def _scored(self, oldest: _Asked, federation: Federation, answer: Answer) -> FrozenTrial:
        facts: dict[str, Any] = {
            "fingerprint": federation.fingerprint(),
            "seconds": round(answer.seconds, 3),
            "rounds": federation.training.rounds,
            "bytes": bytes_sent(federation, len(self._setting.preparer.own.labs)),
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

    def _test(self, federation: Federation) -> dict[str, Any]:
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
        return kept

    def _outer_scores(self, tested: dict[str, list[np.ndarray]]) -> dict[str, float]:
        measured = [lab.targets for lab in self._setting.preparer.own.labs]
        return {
            which: self._scale.score(self._scale.rmse(found, measured))
            for which, found in tested.items()
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
        if not answer.found.was_killed:
            return answer.found.why
        raise WorkerError(
            f"the test of {self._plan.name}: {answer.found.why}; run the same command again, it "
            "goes on from here"
        )
