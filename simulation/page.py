"""What a simulation's report says: its outcome as the content of a page."""

from __future__ import annotations

from functools import partial

import numpy as np

from client.evaluation import predict_in_units
from client.report_rows import lab_row, reasons
from client.specimens import Specimens
from common.metrics import ErrorSums
from common.report.content import (
    MOST_LABS,
    CalibrationRow,
    Contribution,
    Evidence,
    Importance,
    InsideShare,
    LeftOut,
    Matrix,
    ModeRow,
    ParitySeries,
    PartialDependence,
    SimulationReport,
    TrainingRound,
)
from common.report.opening import head_of, targets_of
from simulation.calibration import ALL, Calibrated, calibrated, coverages, inside_the_domain
from simulation.crosslab import (
    cross_errors,
    feature_distances,
    lab_contributions,
    left_out,
)
from simulation.experiment import Outcome
from simulation.scenarios.events import virtual_time
from simulation.scenarios.happened import happenings
from simulation.verdict import gains

SHOWN = ("federated", "local")
"""Modes whose specimens are drawn one by one."""


def simulation_report(outcome: Outcome, labels: dict[str, str], closing: str) -> SimulationReport:
    """Return the content of a simulation's report.

    Parameters
    ----------
    outcome : Outcome
    labels : dict of str to str
        What each mode is called.
    closing : str
        The sentence that says for whom joining pays.
    """
    federation = outcome.consortium.federation
    head = head_of(
        federation,
        title=f"Is joining {federation.name} worth it?",
        verdict=closing,
        excluded=outcome.excluded,
    )
    together = "federated" in outcome.predicted
    ends = calibrated(outcome) if together else None
    importances, dependences = _reasons(outcome) if together else ((), ())
    return SimulationReport(
        head=head,
        evidence=Evidence(
            targets=targets_of(federation),
            modes=_modes(outcome, labels),
            labs=tuple(lab_row(gain) for gain in gains(outcome)),
            rounds=_rounds(outcome),
            calibration=_calibration(outcome, ends) if ends else (),
            matrices=_matrices(outcome) if together else (),
            contributions=_contributions(outcome) if together else (),
            left_out=_left_out(outcome) if together else (),
            importances=importances,
            dependences=dependences,
            inside=_inside(outcome) if together else (),
            notes=_notes(outcome),
        ),
        parity=_parity(outcome, labels, ends),
        happened=happenings(outcome),
        virtual_time=virtual_time(outcome.diary.times),
    )


def _modes(outcome: Outcome, labels: dict[str, str]) -> tuple[ModeRow, ...]:
    rows = []
    federation = outcome.consortium.federation
    for target in federation.targets:
        for mode in outcome.predicted:
            found = outcome.metrics(mode)[target]
            row = ModeRow(
                target=target,
                label=labels[mode],
                is_shared=mode == "federated",
                is_line=mode == "ridge" and federation.training.strategy != "ridge",
                **found,
            )
            rows.append(row)
    return (*rows, *_ridge_beside(outcome, labels))


def _ridge_beside(outcome: Outcome, labels: dict[str, str]) -> list[ModeRow]:
    """Return ridge regression as every federated run has it, where it did not run as a mode."""
    is_ridge = outcome.consortium.federation.training.strategy == "ridge"
    if "ridge" in outcome.predicted or is_ridge or not outcome.evidence.products:
        return []
    consortium, predicted = outcome.consortium, outcome.evidence.versions["ridge"]
    shift = consortium.federation.target_shift
    first, *others = [
        ErrorSums.of(lab.targets, values, shift)
        for lab, values in zip(consortium.labs, predicted, strict=True)
    ]
    total = sum(others, start=first)
    return [
        ModeRow(target=target, label=labels["ridge"], is_line=True, **total.metrics(column))
        for column, target in enumerate(consortium.federation.targets)
    ]


def _rounds(outcome: Outcome) -> tuple[TrainingRound, ...]:
    return tuple(
        TrainingRound(
            server_round=record.server_round,
            loss=record.train_loss,
            missing=record.failed | record.quarantined,
            fold=fold,
        )
        for fold, record in outcome.rounds
    )


def _calibration(outcome: Outcome, ends: Calibrated) -> tuple[CalibrationRow, ...]:
    return tuple(
        CalibrationRow(
            target=row.target,
            level=row.level,
            coverage=row.covered,
            num_specimens=row.num_specimens,
            mean_width=row.width,
            lab=None if row.lab == ALL else row.lab,
        )
        for row in coverages(outcome, ends)
    )


def _matrices(outcome: Outcome) -> tuple[Matrix, ...]:
    federation, labs = outcome.consortium.federation, outcome.consortium.labs
    names = tuple(lab.lab for lab in labs)
    found = []
    if "local" in outcome.predicted and len(labs) <= MOST_LABS:
        for column, (target, about) in enumerate(federation.targets.items()):
            matrix = Matrix(
                title=f"{target}: mean absolute error of each model at each lab",
                rows=(*names, "shared"),
                columns=names,
                values=cross_errors(outcome, column),
                unit=about.unit,
                reading="Read along a row: one model, tried on every lab's held-out specimens.",
                row_title="model of",
                column_title="tried on",
            )
            found.append(matrix)
    apart = feature_distances(outcome)
    if apart is not None:
        matrix = Matrix(
            title="How far the labs' micrographs lie apart",
            rows=tuple(apart[0]),
            columns=tuple(apart[0]),
            values=apart[1],
            reading="Distance of the features' distributions, in deviations of all specimens: "
            "0 is alike, beyond 1 two labs hardly overlap.",
        )
        found.append(matrix)
    return tuple(found)


def _contributions(outcome: Outcome) -> tuple[Contribution, ...]:
    return tuple(
        Contribution(lab=row.lab, target=row.target, value=row.value, is_flagged=row.hurts)
        for row in lab_contributions(outcome)
    )


def _left_out(outcome: Outcome) -> tuple[LeftOut, ...]:
    return tuple(
        LeftOut(lab=row.lab, target=row.target, without=row.left_out, included=row.included)
        for row in left_out(outcome)
    )


def _inside(outcome: Outcome) -> tuple[InsideShare, ...]:
    shares = inside_the_domain(outcome)
    sizes = {lab.lab: len(lab) for lab in outcome.consortium.labs}
    return tuple(
        InsideShare(lab=lab, share=share, num_specimens=sizes[lab]) for lab, share in shares.items()
    )


def _reasons(
    outcome: Outcome,
) -> tuple[tuple[Importance, ...], tuple[PartialDependence, ...]]:
    """Return what the first fold's head leans on, over the specimens that it held out."""
    labs = [
        lab.take(fold == 0) for lab, fold in zip(outcome.consortium.labs, outcome.fold, strict=True)
    ]
    held_out = Specimens(
        lab="all labs",
        ids=tuple(id_ for lab in labs for id_ in lab.ids),
        features=np.concatenate([lab.features for lab in labs]),
        targets=np.concatenate([lab.targets for lab in labs]),
        groups=np.concatenate([lab.groups for lab in labs]),
    )
    model = outcome.evidence.models[0]
    predict = partial(predict_in_units, model.head, model.standardiser)
    return reasons(predict, held_out, outcome.consortium.federation)


def _notes(outcome: Outcome) -> tuple[str, ...]:
    notes = []
    if not {"federated", "local"} <= outcome.predicted.keys():
        notes.append("What joining is worth is not told: it takes the modes federated and local.")
    if outcome.evidence.products:
        notes.append(
            "Errors of a model that never saw a lab, and contributions, are those of ridge "
            "regression over the same sums that labs would send."
        )
    if len(outcome.consortium.labs) > MOST_LABS:
        notes.append(f"Matrices of labs are left out: there are more than {MOST_LABS} labs.")
    return tuple(notes)


def _parity(
    outcome: Outcome, labels: dict[str, str], ends: Calibrated | None
) -> tuple[ParitySeries, ...]:
    found = []
    for column, target in enumerate(outcome.consortium.federation.targets):
        for mode in SHOWN:
            for index, lab in enumerate(outcome.consortium.labs):
                if mode not in outcome.predicted:
                    continue
                predicted = outcome.predicted[mode][index][:, column]
                seen = np.isfinite(predicted) & np.isfinite(lab.targets[:, column])
                shared = mode == "federated" and ends is not None
                # the last level is that of 90 %
                lower = ends.lower[index][-1, :, column] if shared and ends else None
                upper = ends.upper[index][-1, :, column] if shared and ends else None
                series = ParitySeries(
                    target=target,
                    mode=labels[mode],
                    lab=lab.lab,
                    measured=lab.targets[seen, column],
                    predicted=predicted[seen],
                    lower=None if lower is None else lower[seen],
                    upper=None if upper is None else upper[seen],
                    is_shared=mode == "federated",
                )
                if seen.any():
                    found.append(series)
    return tuple(found)
