"""A lab's own report of a run: on its own specimens, made at the lab, and never sent.

What the coordinator's page cannot tell of a small lab, this one can: nothing here leaves.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from client.choice import SHARED
from client.evaluation import predict_in_units
from client.judgement import Judgement
from client.lab import Lab
from client.own_intervals import own_coverage
from client.report_rows import lab_row, reasons, rounds_of
from client.uncertainty import spread_in_units
from client.verdict import NO_DIFFERENCE, TOO_FEW, Gain
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


def write_own_report(lab: Lab, release: Release, judged: Judgement, model: Path) -> None:
    """Write the lab's report beside the folder of the model."""
    # matplotlib comes with it, and a lab that waits needs none
    from common.report.page import write_report

    write_report(report_path(model), own_report(lab, release, judged))


def own_report(lab: Lab, release: Release, judged: Judgement) -> LabReport:
    """Compare the released model with one that the lab trains alone, on its held-out specimens.

    Parameters
    ----------
    lab : Lab
    release : Release
    judged : Judgement

    Raises
    ------
    RequestError
        If a prediction is not finite.
    """
    federation, held_out = lab.federation, lab.held_out
    head, standardiser = release.model.head, release.model.standardiser
    shared = predict_in_units(head, standardiser, held_out.features)
    spread = spread_in_units(head, standardiser, held_out.features, federation)
    stays = judged.own.stays_alone
    # the last level is that of 90 %
    half = judged.own.intervals.quantile[-1] * spread
    inside = (
        None
        if release.novelty is None
        else release.novelty.inside(standardiser.features(held_out.features))
    )
    predicted = {SHARED_LABEL: shared, ALONE_LABEL: judged.alone}
    # under the strategy ridge it is the shared model itself
    if release.baseline is not None and federation.training.strategy != "ridge":
        predicted[LINE_LABEL] = predict_in_units(release.baseline, standardiser, held_out.features)
    importances, dependences = reasons(judged.own.predict, held_out, federation)
    return LabReport(
        head=head_of(
            federation,
            title=f"{federation.name}: what the run is worth to {lab.name}",
            verdict=own_sentence(judged.gains),
        ),
        lab=lab.name,
        evidence=Evidence(
            targets=targets_of(federation),
            modes=_modes(lab, predicted),
            labs=tuple(lab_row(gain) for gain in judged.gains),
            rounds=rounds_of(release.provenance.training),
            calibration=own_coverage(lab, release, judged.used, stays),
            left_out=_left_out(release),
            importances=importances,
            dependences=dependences,
            inside=()
            if inside is None
            else (
                InsideShare(lab=lab.name, share=float(inside.mean()), num_specimens=len(inside)),
            ),
            notes=_notes(lab, release, judged),
        ),
        # intervals of a target that stays alone are not about the shared head
        parity=_parity(lab, judged, np.where(stays, np.nan, half)),
        specimens=_specimens(lab, judged.used, half, inside),
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


def _parity(lab: Lab, judged: Judgement, half: np.ndarray) -> tuple[ParitySeries, ...]:
    found = []
    for column, target in enumerate(lab.federation.targets):
        measured = lab.held_out.targets[:, column]
        for label, values in ((JOINED_LABEL, judged.joined), (ALONE_LABEL, judged.alone)):
            seen = np.isfinite(measured) & np.isfinite(values[:, column])
            if not seen.any():
                continue
            predicted, wide = values[seen, column], half[seen, column]
            is_shared = label == JOINED_LABEL
            drawn = is_shared and bool(np.isfinite(wide).all())
            series = ParitySeries(
                target=target,
                mode=label,
                lab=lab.name,
                measured=measured[seen],
                predicted=predicted,
                lower=predicted - wide if drawn else None,
                upper=predicted + wide if drawn else None,
                is_shared=is_shared,
            )
            found.append(series)
    return tuple(found)


def _specimens(
    lab: Lab, used: np.ndarray, half: np.ndarray, inside: np.ndarray | None
) -> tuple[OwnSpecimen, ...]:
    return tuple(
        OwnSpecimen(
            specimen=specimen,
            target=target,
            predicted=float(used[row, column]),
            measured=as_finite(lab.held_out.targets[row, column]),
            lower=as_finite(used[row, column] - half[row, column]),
            upper=as_finite(used[row, column] + half[row, column]),
            is_inside=None if inside is None else bool(inside[row]),
        )
        for column, target in enumerate(lab.federation.targets)
        for row, specimen in enumerate(lab.held_out.ids)
    )


def _notes(lab: Lab, release: Release, judged: Judgement) -> tuple[str, ...]:
    notes = [
        f"All of it is about the {len(lab.held_out)} specimens that this lab held out, one fifth; "
        "the choice of a version is tried on one half of them and made on the other. Intervals are "
        "those that your next specimen gets: these specimens had a part in them. How often they "
        "hold was tried on each half with those of the other. Where joining is clearly worse, they "
        "are about your own model, which was chosen on all of these specimens."
    ]
    versions = zip(lab.federation.targets, judged.own.chosen, strict=True)
    others = [f"{target}, {version}" for target, version in versions if version != SHARED]
    if others:
        notes.append(
            "What predictions hang on is told of what your lab predicts with, which is not the "
            f"shared model for: {'; '.join(others)}."
        )
    if _left_out(release):
        notes.append(
            "Errors at labs that a model has not seen are root mean squares of ridge regression, "
            "over the labs' training specimens."
        )
    if not lab.name_in_card and lab.name in release.provenance.labs:
        notes.append(
            "The model's card names your lab, though your policy says that it may not: what your "
            "lab said when the run began counts."
        )
    elif not lab.name_in_card:
        notes.append("Your lab is one of the unnamed on the model's card that came to it.")
    if release.novelty is None:
        notes.append(
            "No lab let its sums of products leave it: nobody can tell whether a specimen is "
            "unlike any lab's, nor how many tests of its own would be worth the same."
        )
    return tuple(notes)
