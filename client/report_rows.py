"""Verdicts as rows of a report: of one lab at the lab, of all in a simulation."""

from __future__ import annotations

import numpy as np

from client.choice import OFFSET, PERSONALISED, SHARED
from client.verdict import HOLD, JOIN, NO_DIFFERENCE, Gain
from common.federation import Federation
from common.report.content import LabRow, Model, Target, Verdict

VERDICTS: dict[str, Verdict] = {JOIN: "join", HOLD: "hold", NO_DIFFERENCE: "no difference"}
MODELS: dict[str, Model] = {
    SHARED: "shared",
    PERSONALISED: "personalised",
    OFFSET: "with offset",
}


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
        personalised=gain.joined,
        gain=gain.mean,
        gain_low=gain.low,
        gain_high=gain.high,
        verdict=VERDICTS.get(gain.verdict),
        use="own" if gain.verdict == HOLD else MODELS[gain.use],
        specimens_worth=worth,
        is_at_least=bool(bound) and worth is not None,
    )


def targets_of(federation: Federation) -> tuple[Target, ...]:
    """Return a federation's targets as a report shows them."""
    return tuple(
        Target(name=name, unit=target.unit, low=target.range[0], high=target.range[1])
        for name, target in federation.targets.items()
    )
