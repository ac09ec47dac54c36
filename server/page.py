"""What the coordinator's report of a run says: all labs, and nothing of a single specimen."""

from __future__ import annotations

import numpy as np

from common.federation import Federation
from common.intervals import LEVELS, Intervals, coverage, shrunk
from common.report.content import (
    MOST_LABS,
    CalibrationRow,
    Contribution,
    CoordinatorReport,
    Evidence,
    LabRow,
    LeftOut,
    ModeRow,
    TrainingRound,
)
from common.report.opening import head_of, targets_of
from server.contribution import contributions
from server.evidence import Evaluation, Products
from server.matrices import matrices_of
from server.state import RunResult


def coordinator_report(
    federation: Federation, result: RunResult, *, judged: bool = False
) -> CoordinatorReport:
    """Return the content of a run's report for the coordinator, who knows all labs by name.

    Parameters
    ----------
    federation : Federation
    result : RunResult
    judged : bool
        Whether it says what each lab contributes: labs should have agreed to that.
    """
    rounds, products = result.history, result.products
    head = head_of(
        federation,
        title=f"{federation.name}: what the run came to",
        verdict=_closing(federation, result.evaluation),
        excluded=result.excluded,
    )
    evidence = Evidence(
        targets=targets_of(federation),
        modes=_modes(federation, result.evaluation),
        labs=_labs(federation, result.evaluation),
        rounds=tuple(
            TrainingRound(
                server_round=record.server_round,
                loss=record.train_loss,
                missing=record.failed | record.quarantined,
            )
            for record in rounds
        ),
        calibration=_calibration(federation, result.evaluation),
        matrices=matrices_of(federation, result),
        contributions=_contributions(federation, products) if products and judged else (),
        left_out=_left_out(federation, result, products) if products else (),
        notes=_notes(federation, result, judged=judged),
    )
    return CoordinatorReport(head=head, evidence=evidence)


def _closing(federation: Federation, evaluation: Evaluation) -> str:
    if not evaluation.errors:
        return "No lab had enough held-out specimens to tell how well the shared model predicts."
    total = evaluation.total("errors")
    said = []
    for column, (name, target) in enumerate(federation.targets.items()):
        found = total.metrics(column)
        if found["num_specimens"]:
            unit = "" if target.unit == "dimensionless" else f" {target.unit}"
            said.append(f"{name} to {found['mae']:.3g}{unit} on average")
    count = len(evaluation.errors)
    labs = f"{count} labs" if count > 1 else "one lab"
    return f"On specimens that {labs} held out, the shared model predicts {', '.join(said)}."


def _modes(federation: Federation, evaluation: Evaluation) -> tuple[ModeRow, ...]:
    rows = []
    kinds = (
        ("shared model", evaluation.total("errors"), True),
        ("ridge", evaluation.total("baseline"), False),
    )
    for column, target in enumerate(federation.targets):
        for label, total, is_shared in kinds:
            if total is not None:
                found = total.metrics(column)
                row = ModeRow(
                    target=target,
                    label=label,
                    is_shared=is_shared,
                    # under the strategy ridge it is the shared model itself
                    is_line=not is_shared and federation.training.strategy != "ridge",
                    **found,
                )
                rows.append(row)
    return tuple(rows)


def _labs(federation: Federation, evaluation: Evaluation) -> tuple[LabRow, ...]:
    rows = []
    for column, target in enumerate(federation.targets):
        for lab, errors in evaluation.errors.items():
            found = errors.metrics(column)
            if found["num_specimens"]:
                row = LabRow(
                    lab=lab,
                    target=target,
                    num_specimens=found["num_specimens"],
                    together=found["mae"],
                )
                rows.append(row)
    return tuple(rows)


def _calibration(federation: Federation, evaluation: Evaluation) -> tuple[CalibrationRow, ...]:
    """Try the quantiles of each half of the held-out specimens on the other half."""
    if not evaluation.calibration:
        return ()
    of_labs = evaluation.calibration
    everyone = sum((sums.counts for sums in of_labs.values()), start=np.zeros(()))
    rows = []
    for column, target in enumerate(federation.targets):
        found = {lab: _tried(sums.counts, everyone, column) for lab, sums in of_labs.items()}
        spreads = {lab: sums.spreads[:, column] for lab, sums in of_labs.items()}
        for lab in (None, *of_labs):
            chosen = list(of_labs) if lab is None else [lab]
            counts = np.array([found[name][0] for name in chosen])
            covered = np.array([found[name][1] for name in chosen])
            widths = np.array(
                [
                    2 * found[name][2] * np.where(found[name][0] > 0, spreads[name], 0.0)
                    for name in chosen
                ]
            )
            if counts.sum() == 0:
                continue
            for number, level in enumerate(LEVELS):
                width = float(widths[:, number].sum() / counts.sum())
                row = CalibrationRow(
                    target=target,
                    level=level,
                    coverage=float(covered[:, number].sum() / counts.sum()),
                    num_specimens=int(counts.sum()),
                    mean_width=width if np.isfinite(width) else None,
                    lab=lab,
                )
                rows.append(row)
    return tuple(rows)


def _tried(
    counts: np.ndarray, everyone: np.ndarray, column: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return specimens, covered specimens and quantiles of both halves of one lab.

    Returns
    -------
    counts : ndarray of shape (2,)
    covered, quantiles : ndarray of shape (n_levels, 2)
    """
    sizes = counts[:, column].sum(axis=1)
    covered, found = np.zeros((len(LEVELS), 2)), np.zeros((len(LEVELS), 2))
    for half in (0, 1):
        own = counts[1 - half]
        quantile = Intervals.calibrated(shrunk(own, everyone[1 - half] - own)).quantile
        shares = coverage(counts[half], quantile)[:, column]
        if not np.isfinite(quantile[:, column]).all():
            # an interval without end covers all, and says nothing
            sizes[half] = 0.0
        covered[:, half] = np.nan_to_num(shares) * sizes[half]
        found[:, half] = np.where(sizes[half] > 0, quantile[:, column], 0.0)
    return sizes, covered, found


def _contributions(federation: Federation, products: Products) -> tuple[Contribution, ...]:
    return tuple(
        Contribution(lab=row.lab, target=row.target, value=row.value, is_flagged=row.hurts)
        for row in contributions(products.of_labs, tuple(federation.targets))
    )


def _left_out(federation: Federation, result: RunResult, products: Products) -> tuple[LeftOut, ...]:
    rows = []
    scale = result.standardiser.target_scale
    for lab, fit in products.left_out.items():
        own = products.of_labs[lab]
        told = own.counts >= federation.privacy.min_specimens
        errors = np.where(told, np.sqrt(fit.mean_square_over(own)) * scale, np.nan)
        for target, error in zip(federation.targets, errors, strict=True):
            if np.isfinite(error):
                rows.append(LeftOut(lab=lab, target=target, without=float(error)))
    return tuple(sorted(rows, key=lambda row: list(federation.targets).index(row.target)))


def _notes(federation: Federation, result: RunResult, *, judged: bool) -> tuple[str, ...]:
    notes = []
    silent = sorted(set(result.labs) - set(result.evaluation.errors))
    if silent:
        notes.append(
            f"No errors are told of {', '.join(silent)}: fewer than "
            f"{federation.privacy.min_specimens} held-out specimens, or the lab's policy keeps "
            "them back. The lab's own report has them."
        )
    if result.unnamed:
        notes.append(
            f"The released model does not name {', '.join(result.unnamed)}, and this page does: it "
            "is yours, and handed on with their consent alone."
        )
    if result.products is None:
        notes.append("No lab let its sums of products leave it: there is no linear baseline.")
    else:
        if len(result.products.of_labs) > MOST_LABS:
            notes.append(f"Matrices of labs are left out: there are more than {MOST_LABS} labs.")
        notes.append(
            "Errors at labs that a model has not seen are root mean squares of ridge regression, "
            "over the labs' training specimens."
        )
    if not judged:
        notes.append(
            "What each lab contributes is not told. Once the labs agree: crossply server report "
            "--contributions"
        )
    return tuple(notes)
