"""One simulation: every mode on the same folds, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from client.evaluation import second_half
from client.lab import HELD_OUT_FOLDS, Lab, split_lab
from client.splits import fold_of_each
from common.metrics import ErrorSums
from common.threads import one_thread
from server.state import RoundRecord, RunResult
from simulation.consortium import Consortium
from simulation.evidence import Evidence, note_federated, note_local
from simulation.modes import MODES, federated, local
from simulation.round_clock import OnRound
from simulation.scenarios.events import Diary
from simulation.scenarios.label_faults import events_of_data, training_on, written_targets
from simulation.scenarios.scenario import Scenario
from simulation.scenarios.scripted import Scripted


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """Predictions of held-out specimens by every mode that ran; equal to itself alone.

    Attributes
    ----------
    consortium : Consortium
    fold : list of ndarray of shape (n_specimens,), int64
        For each lab: the fold that a specimen was held out in, or -1 for none.
    predicted : dict of str to list of ndarray of shape (n_specimens, n_targets)
        For each mode and lab, in the targets' units; NaN where there is no prediction.
    rounds : list of (int, RoundRecord)
        The fold, and what happened in each of its federated rounds.
    excluded : dict of str to str
        Labs that were put out of a federated run, with the reason.
    seconds : dict of str to float
        Wall-clock time of each mode, and of ``evidence`` beside them.
    evidence : Evidence
    engine : str
        What trained the federated labs: a key of `simulation.engine`.
    scenario : Scenario or None
        What befell them.
    written : list of ndarray of shape (n_specimens, n_targets)
        What each lab takes for its targets and trains on; errors are measured on the true ones.
    diary : Diary
        What happened in the rounds, and what is wrong with labs' data.
    """

    consortium: Consortium
    fold: list[np.ndarray]
    predicted: dict[str, list[np.ndarray]]
    rounds: list[tuple[int, RoundRecord]]
    excluded: dict[str, str]
    seconds: dict[str, float]
    evidence: Evidence
    engine: str = "inprocess"
    scenario: Scenario | None = None
    written: list[np.ndarray] = field(default_factory=list)
    diary: Diary = field(default_factory=Diary)

    @cached_property
    def blocks(self) -> list[np.ndarray]:
        """Blocks of held-out specimens: what is found on some is tried on the others.

        Returns
        -------
        list of ndarray of shape (n_specimens,), int64
            The fold, or one of two halves where there is a single split; negative for specimens
            that were never held out.
        """
        if max(int(fold.max()) for fold in self.fold) > 0:
            return self.fold
        seed = self.consortium.federation.training.seed
        found = []
        for lab, fold in zip(self.consortium.labs, self.fold, strict=True):
            block = fold.copy()
            block[fold >= 0] = second_half(lab.take(fold >= 0), seed).astype(np.int64)
            found.append(block)
        return found

    def errors(self, mode: str, lab: int) -> ErrorSums:
        """Return the sums of a mode's errors on one lab's held-out specimens."""
        return ErrorSums.of(
            self.consortium.labs[lab].targets,
            self.predicted[mode][lab],
            self.consortium.federation.target_shift,
        )

    def metrics(self, mode: str, labs: Sequence[int] | None = None) -> dict[str, Any]:
        """Return a mode's metrics for each target, over all labs or some."""
        chosen = range(len(self.consortium.labs)) if labs is None else labs
        first, *others = [self.errors(mode, lab) for lab in chosen]
        total = sum(others, start=first)
        targets = self.consortium.federation.targets
        return {target: total.metrics(index) for index, target in enumerate(targets)}


def run_experiment(
    consortium: Consortium,
    *,
    modes: Sequence[str] = tuple(MODES),
    folds: int | None = None,
    on_step: Callable[[str, int, int], None] = lambda what, done, total: None,
    on_round: Callable[[int, RoundRecord, float], None] = lambda fold, record, seconds: None,
    engine: str = "inprocess",
    scenario: Scenario | None = None,
) -> Outcome:
    """Run the modes on the same splits.

    Parameters
    ----------
    consortium : Consortium
    modes : sequence of str
        Keys of `MODES`.
    folds : int or None
        K-fold cross-validation inside every lab, or (None) one held-out fifth.
    on_step : callable
        Told what is done, how far it is, and of how much.
    on_round : callable
        Told the fold, the record and the seconds of each federated round that counted.
    engine : str
        What trains the federated labs: a name of `simulation.engine`.
    scenario : Scenario or None
        What befalls the labs of the consortium, which is cut already.
    """
    num_folds = folds or HELD_OUT_FOLDS
    held_out = range(num_folds) if folds else range(1)
    of_each = folds_of_labs(consortium, num_folds)
    outcome = Outcome(
        consortium=consortium,
        fold=[np.where(fold < len(held_out), fold, -1) for fold in of_each],
        predicted={
            mode: [np.full(lab.targets.shape, np.nan) for lab in consortium.labs] for mode in modes
        },
        rounds=[],
        excluded={},
        seconds={"evidence": 0.0},
        evidence=Evidence.empty(consortium.labs),
        engine=engine,
        scenario=scenario,
        written=written_targets(consortium, scenario or Scenario()),
    )
    if scenario is not None:
        outcome.diary.events.extend(events_of_data(consortium, outcome.written, scenario))
    with one_thread():
        for mode in modes:
            started, before = time.perf_counter(), outcome.seconds["evidence"]
            for fold in held_out:
                _run_fold(outcome, mode, fold, partial(on_step, mode), partial(on_round, fold))
            aside = outcome.seconds["evidence"] - before
            outcome.seconds[mode] = time.perf_counter() - started - aside
    return outcome


def folds_of_labs(consortium: Consortium, folds: int) -> list[np.ndarray]:
    """Assign every lab's specimens to folds; material that labs share is in one fold at all.

    Otherwise a model trained at one lab on a batch would be tested at another on its twin.
    """
    seed = consortium.federation.training.seed
    taken: dict[int, int] = {}
    found = []
    for lab in consortium.labs:
        of_each = fold_of_each(lab.groups, folds=folds, lab=lab.lab, seed=seed, taken=taken)
        taken |= dict(zip(lab.groups.tolist(), of_each.tolist(), strict=True))
        found.append(of_each)
    return found


def _run_fold(
    outcome: Outcome,
    mode: str,
    fold: int,
    on_step: Callable[[int, int], None],
    on_round: OnRound,
) -> None:
    federation = outcome.consortium.federation
    labs = [
        training_on(split_lab(lab, federation, of_each == fold), written[of_each != fold])
        for lab, of_each, written in zip(
            outcome.consortium.labs, outcome.fold, outcome.written, strict=True
        )
    ]
    num_held_out = int(max(of_each.max() for of_each in outcome.fold)) + 1
    rounds = federation.training.rounds
    held_out = [of_each == fold for of_each in outcome.fold]
    noted = partial(_note, outcome, labs, held_out)
    if mode == "federated":

        def counted(record: RoundRecord, seconds: float) -> None:
            outcome.rounds.append((fold, record))
            on_round(record, seconds)
            on_step(fold * rounds + record.server_round, num_held_out * rounds)

        def on_result(result: RunResult) -> None:
            outcome.excluded.update(result.excluded)
            noted(note_federated, result)

        scripted = None
        if outcome.scenario is not None:
            scripted = Scripted(scenario=outcome.scenario, diary=outcome.diary, fold=fold)
        predicted = federated(labs, counted, on_result, engine=outcome.engine, scripted=scripted)
    else:
        if mode == "local":
            predicted = local(labs, partial(noted, note_local))
        else:
            predicted = MODES[mode](labs)
        on_step(fold + 1, num_held_out)
    for target, rows, values in zip(outcome.predicted[mode], held_out, predicted, strict=True):
        target[rows] = values


def _note(
    outcome: Outcome,
    labs: Sequence[Lab],
    held_out: Sequence[np.ndarray],
    note: Callable[..., None],
    found: Any,
) -> None:
    started = time.perf_counter()
    note(outcome.evidence, labs, held_out, found)
    outcome.seconds["evidence"] += time.perf_counter() - started
