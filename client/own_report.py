"""A lab's own report of a run: on its own specimens, made at the lab, and never sent.

What the coordinator's page cannot tell of a small lab, this one can: nothing here leaves.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from client.alone import train_alone
from client.evaluation import predict_in_units, second_half
from client.lab import Lab
from client.learning_curve import points_of, power_of
from client.own_intervals import own_coverage
from client.own_version import make_own_version
from client.report_rows import lab_row, reasons
from client.uncertainty import spread_in_units
from client.verdict import NO_DIFFERENCE, TOO_FEW, Comparison, Gain, gain_of
from common.errors import CrossplyError
from common.metrics import ErrorSums, as_finite
from common.release import Release
from common.report.content import (
    Evidence,
    InsideShare,
    LabReport,
    LeftOut,
    ModeRow,
    OwnSpecimen,
    ParitySeries,
)
from common.report.opening import head_of, targets_of
from common.units import symbol

log = logging.getLogger(__name__)

SHARED_LABEL, ALONE_LABEL, LINE_LABEL = "shared model", "your specimens alone", "ridge"
JOINED_LABEL = "joined, by the version that your lab would use"


def report_path(model: Path) -> Path:
    """Return where the report of a released model lies: beside its folder.

    Examples
    --------
    >>> report_path(Path("state/model")).as_posix()
    'state/report.html'
    """
    return model.parent / "report.html"


def write_own_report(lab: Lab, release: Release, model: Path) -> None:
    """Write the lab's report; a run does not fail for want of one, the lab's log says why."""
    # matplotlib comes with it, and a lab that waits needs none
    from common.report.page import write_report

    try:
        write_report(report_path(model), own_report(lab, release))
    except (CrossplyError, OSError) as error:
        log.warning("no report of this run: %s", error)
    except Exception:
        # the model is what a lab has waited for: nothing about a page may keep it from it
        log.exception("no report of this run")


def own_report(lab: Lab, release: Release) -> LabReport:
    """Compare the released model with one that the lab trains alone, on its held-out specimens.

    Parameters
    ----------
    lab : Lab
    release : Release

    Raises
    ------
    DivergedError
        If training alone does not stay finite.
    RequestError
        If a prediction is not finite.
    """
    federation, held_out = lab.federation, lab.held_out
    head, standardiser = release.model.head, release.model.standardiser
    shared = predict_in_units(head, standardiser, held_out.features)
    training = lab.training
    alone = train_alone(federation, training.features, training.targets, lab.name)(
        held_out.features
    )
    own, tried = make_own_version(lab, release)
    gains = _gains(lab, release, alone, own.versions.predictions(held_out.features))
    spread = spread_in_units(head, standardiser, held_out.features, federation)
    # the last level is that of 90 %
    lower, upper = (ends[-1] for ends in own.intervals.around(tried, spread))
    inside = (
        None
        if release.novelty is None
        else release.novelty.inside(standardiser.features(held_out.features))
    )
    predicted = {SHARED_LABEL: shared, ALONE_LABEL: alone}
    if release.baseline is not None:
        predicted[LINE_LABEL] = predict_in_units(release.baseline, standardiser, held_out.features)
    importances, dependences = reasons(release.model, held_out, federation)
    return LabReport(
        head=head_of(
            federation,
            title=f"{federation.name}: what the run is worth to {lab.name}",
            verdict=own_sentence(gains),
        ),
        lab=lab.name,
        evidence=Evidence(
            targets=targets_of(federation),
            modes=_modes(lab, predicted),
            labs=tuple(lab_row(gain) for gain in gains),
            calibration=own_coverage(lab, release, tried),
            left_out=_left_out(release),
            importances=importances,
            dependences=dependences,
            inside=()
            if inside is None
            else (
                InsideShare(lab=lab.name, share=float(inside.mean()), num_specimens=len(inside)),
            ),
            notes=_notes(lab, release),
        ),
        parity=_parity(lab, tried, alone, (lower, upper)),
        specimens=_specimens(lab, tried, (lower, upper), inside),
    )


def own_sentence(gains: list[Gain]) -> str:
    """Say in one sentence what joining is worth to this lab, target by target.

    Examples
    --------
    >>> gain = Gain(lab="a", target="strength", unit="MPa", num_specimens=9, num_groups=9,
    ...             num_trained=36,
    ...             alone=8.0, together=6.5, joined=6.0, low=1.0, high=3.0)
    >>> own_sentence([gain])
    'On specimens that your lab held out, the error of strength is 6 MPa joined and 8 MPa alone: \
join.'
    """
    if not gains:
        return "Your lab holds out too few specimens to say what joining is worth."
    said = []
    for gain in gains:
        unit = f" {symbol(gain.unit)}".rstrip()
        words = {
            TOO_FEW: "too few specimens to tell",
            NO_DIFFERENCE: "no clear difference",
        }.get(gain.verdict, gain.verdict)
        said.append(
            f"{gain.target} is {gain.joined:.3g}{unit} joined and {gain.alone:.3g}{unit} alone: "
            f"{words}"
        )
    return f"On specimens that your lab held out, the error of {'; of '.join(said)}."


def _gains(
    lab: Lab, release: Release, alone: np.ndarray, versions: dict[str, np.ndarray]
) -> list[Gain]:
    federation, held_out = lab.federation, lab.held_out
    points = (
        []
        if release.novelty is None
        else points_of(0, lab, release.model.standardiser, release.novelty.directions)
    )
    found = []
    for column, (name, target) in enumerate(federation.targets.items()):
        comparison = Comparison(
            lab=lab.name,
            target=name,
            unit=target.unit,
            measured=held_out.targets[:, column],
            groups=held_out.groups,
            block=second_half(held_out, federation.training.seed).astype(np.int64),
            seed=federation.training.seed,
            num_trained=int(np.isfinite(lab.training.targets[:, column]).sum()),
            alone=alone[:, column],
            versions={name: values[:, column] for name, values in versions.items()},
        )
        gain = gain_of(comparison, power_of(points, column))
        if gain is not None:
            found.append(gain)
    return found


def _modes(lab: Lab, predicted: dict[str, np.ndarray]) -> tuple[ModeRow, ...]:
    rows = []
    for column, target in enumerate(lab.federation.targets):
        for label, values in predicted.items():
            sums = ErrorSums.of(lab.held_out.targets, values, lab.federation.target_shift)
            found = sums.metrics(column)
            if found["num_specimens"]:
                row = ModeRow(
                    target=target,
                    label=label,
                    is_shared=label == SHARED_LABEL,
                    is_line=label == LINE_LABEL,
                    **found,
                )
                rows.append(row)
    return tuple(rows)


def _left_out(release: Release) -> tuple[LeftOut, ...]:
    told = release.provenance
    return tuple(
        LeftOut(lab=lab, target=target, without=float(error))
        for column, target in enumerate(release.federation.targets)
        for lab, error in zip(told.labs, told.left_out_rmse[:, column], strict=True)
        if np.isfinite(error)
    )


def _parity(
    lab: Lab, joined: np.ndarray, alone: np.ndarray, ends: tuple[np.ndarray, np.ndarray]
) -> tuple[ParitySeries, ...]:
    found = []
    for column, target in enumerate(lab.federation.targets):
        measured = lab.held_out.targets[:, column]
        for label, values in ((JOINED_LABEL, joined), (ALONE_LABEL, alone)):
            seen = np.isfinite(measured) & np.isfinite(values[:, column])
            if not seen.any():
                continue
            lower, upper = (end[seen, column] for end in ends)
            is_shared = label == JOINED_LABEL
            drawn = is_shared and bool(np.isfinite(lower).all())
            series = ParitySeries(
                target=target,
                mode=label,
                lab=lab.name,
                measured=measured[seen],
                predicted=values[seen, column],
                lower=lower if drawn else None,
                upper=upper if drawn else None,
                is_shared=is_shared,
            )
            found.append(series)
    return tuple(found)


def _specimens(
    lab: Lab,
    joined: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray],
    inside: np.ndarray | None,
) -> tuple[OwnSpecimen, ...]:
    return tuple(
        OwnSpecimen(
            specimen=specimen,
            target=target,
            predicted=float(joined[row, column]),
            measured=as_finite(lab.held_out.targets[row, column]),
            lower=as_finite(ends[0][row, column]),
            upper=as_finite(ends[1][row, column]),
            is_inside=None if inside is None else bool(inside[row]),
        )
        for column, target in enumerate(lab.federation.targets)
        for row, specimen in enumerate(lab.held_out.ids)
    )


def _notes(lab: Lab, release: Release) -> tuple[str, ...]:
    notes = [
        f"All of it is about the {len(lab.held_out)} specimens that this lab held out, one fifth; "
        "the choice of a version is tried on one half of them and made on the other. Intervals are "
        "those that your next specimen gets: these specimens had a part in them. How often they "
        "hold was tried on each half with those of the other."
    ]
    if _left_out(release):
        notes.append(
            "Errors at labs that a model has not seen are root mean squares of ridge regression, "
            "over the labs' training specimens."
        )
    if release.novelty is None:
        notes.append(
            "No lab let its sums of products leave it: nobody can tell whether a specimen is "
            "unlike any lab's, nor how many tests of its own would be worth the same."
        )
    return tuple(notes)
