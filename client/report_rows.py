"""Verdicts and reasons as rows of a report: of one lab at the lab, of all in a simulation."""

from __future__ import annotations

import numpy as np

from client.alone import Predictor
from client.choice import ALIGNED, CORAL, OFFSET, PERSONALISED, SHARED
from client.importance import partial_dependence, permutation_importance
from client.specimens import Specimens
from client.verdict import HOLD, JOIN, NO_DIFFERENCE, Gain
from common.federation import Federation
from common.provenance import TrainingCurve
from common.report.content import Importance as ImportanceRow
from common.report.content import LabRow, Model, TrainingRound, Verdict
from common.report.content import PartialDependence as DependenceRow

VERDICTS: dict[str, Verdict] = {JOIN: "join", HOLD: "hold", NO_DIFFERENCE: "no difference"}
MODELS: dict[str, Model] = {
    SHARED: "shared",
    PERSONALISED: "personalised",
    OFFSET: "with offset",
    ALIGNED: "aligned",
    CORAL: "aligned",
}


MOST_CURVES = 4
"""Of a target: those of the features that it hangs on most."""


def lab_row(gain: Gain) -> LabRow:
    """Return what joining is worth to a lab as a row of a report."""
    bound = gain.more_specimens is not None and np.isinf(gain.more_specimens)
    worth = None
    if gain.more_specimens is not None and gain.verdict == JOIN:
        worth = gain.most_specimens if bound else max(round(gain.more_specimens), 1)
    return LabRow(
        lab=gain.lab,
        target=gain.target,
        num_specimens=gain.num_specimens,
        alone=gain.alone,
        together=gain.together,
        joined=gain.joined,
        gain=gain.mean,
        gain_low=gain.low,
        gain_high=gain.high,
        verdict=VERDICTS.get(gain.verdict),
        use="own" if gain.verdict == HOLD else MODELS[gain.use],
        specimens_worth=worth,
        is_at_least=bool(bound) and worth is not None,
    )


def rounds_of(curve: TrainingCurve | None) -> tuple[TrainingRound, ...]:
    """Return the rounds of a run as a lab knows them: how many were missing, and not who.

    Examples
    --------
    >>> curve = TrainingCurve(train_loss=np.array([0.5, 0.4]), num_missing=np.array([0.0, 2.0]))
    >>> [(one.server_round, one.loss, one.num_missing) for one in rounds_of(curve)]
    [(1, 0.5, 0), (2, 0.4, 2)]
    """
    if curve is None:
        return ()
    return tuple(
        TrainingRound(server_round=number, loss=loss, num_missing=int(missing))
        for number, (loss, missing) in enumerate(
            zip(curve.train_loss.tolist(), curve.num_missing.tolist(), strict=True), start=1
        )
    )


def reasons(
    predict: Predictor, specimens: Specimens, federation: Federation, repeats: int = 10
) -> tuple[tuple[ImportanceRow, ...], tuple[DependenceRow, ...]]:
    """Return what predictions lean on: the network's features together, and each that has a name.

    Parameters
    ----------
    predict : Predictor
    specimens : Specimens
        Of fewer than two there is nothing to tell.
    federation : Federation
    repeats : int
        Of permutation importance.
    """
    if len(specimens) < 2:
        return (), ()
    found = permutation_importance(predict, specimens, federation, repeats=repeats)
    importances = tuple(
        ImportanceRow(
            target=target,
            feature=group.name,
            increase=float(found.increase[row, column]),
            spread=float(found.spread[row, column]),
        )
        for column, target in enumerate(federation.targets)
        if np.isfinite(found.mae[column])
        for row, group in enumerate(found.groups)
    )
    curves = partial_dependence(predict, specimens, federation)
    dependences: list[DependenceRow] = []
    for column, target in enumerate(federation.targets):
        # the network's features, which come first, have no curve
        order = np.argsort(-found.increase[1:, column], kind="stable")[:MOST_CURVES]
        dependences.extend(
            DependenceRow(
                target=target,
                feature=curves[row].group.name,
                unit=curves[row].group.unit or "dimensionless",
                x=curves[row].values,
                y=curves[row].predicted[:, column],
            )
            for row in order
        )
    return importances, tuple(dependences)
