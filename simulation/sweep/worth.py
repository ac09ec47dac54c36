"""Was the sweep worth it: the chosen settings and the file's own on specimens no choice saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from client.verdict import FEWEST_GROUPS, bootstrap
from common.seeds import seed_for
from common.units import symbol
from simulation.sweep.nested import Swept
from simulation.sweep.outcome import CHOSEN, OWN


@dataclass(frozen=True, kw_only=True)
class Worth:
    """One target, over the outer held-out specimens of all labs.

    Attributes
    ----------
    target, unit : str
    own, chosen : dict
        As `common.metrics.ErrorSums.metrics` returns them.
    low, high : float or None
        Ends, at 95 %, of the interval of how much smaller the chosen settings' mean absolute error
        is, in the target's unit: paired bootstrap over groups. None with few of them.
    """

    target: str
    unit: str
    own: dict[str, Any]
    chosen: dict[str, Any]
    low: float | None
    high: float | None

    @property
    def share(self) -> float:
        """How much smaller the chosen settings' mean absolute error is, as a share of the own."""
        return 1.0 - float(self.chosen["mae"]) / max(float(self.own["mae"]), np.finfo(float).tiny)

    @property
    def is_clear(self) -> bool:
        """Whether chance alone would rarely bring such a difference about."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def worths(swept: Swept) -> list[Worth]:
    """Return what the sweep was worth for each target that was tried on outer specimens."""
    federation, labs = swept.setting.space.federation, swept.setting.preparer.own.labs
    if not swept.tested:
        return []
    sums = {which: swept.errors(which) for which in (OWN, CHOSEN)}
    predicted = {which: np.concatenate(swept.predicted(which)) for which in (OWN, CHOSEN)}
    measured = np.concatenate([lab.targets for lab in labs])
    groups = np.concatenate([lab.groups for lab in labs])
    found = []
    for column, (name, target) in enumerate(federation.targets.items()):
        errors = {
            which: np.abs(values[:, column] - measured[:, column])
            for which, values in predicted.items()
        }
        seen = np.isfinite(errors[OWN]) & np.isfinite(errors[CHOSEN])
        if not seen.any():
            continue
        ends: tuple[float, float] | tuple[None, None] = (None, None)
        if len(set(groups[seen].tolist())) >= FEWEST_GROUPS:
            seed = seed_for(federation.training.seed, "sweep", name)
            ends = bootstrap((errors[OWN] - errors[CHOSEN])[seen], groups[seen], seed)
        found.append(
            Worth(
                target=name,
                unit=target.unit,
                own=sums[OWN].metrics(column),
                chosen=sums[CHOSEN].metrics(column),
                low=ends[0],
                high=ends[1],
            )
        )
    return found


def sentence(found: list[Worth], *, is_same: bool) -> str:
    """Say in one plain sentence whether the sweep was worth it.

    Parameters
    ----------
    found : list of Worth
    is_same : bool
        Whether the file's own settings were chosen.

    Examples
    --------
    >>> one = Worth(target="strength", unit="MPa", own={"mae": 10.0}, chosen={"mae": 8.0},
    ...             low=0.5, high=3.5)
    >>> sentence([one], is_same=False)
    'On specimens that no choice saw, the chosen settings err less than those of the file: \
mean absolute error of strength 8 against 10 MPa, 20 % smaller.'
    >>> worse = Worth(target="strength", unit="MPa", own={"mae": 10.0}, chosen={"mae": 14.0},
    ...               low=-6.0, high=-2.0)
    >>> sentence([worse], is_same=False).rpartition("; ")[2]
    'keep the settings of the file.'
    """
    if is_same:
        return "No settings were found that beat those of the file."
    if not found:
        return "The chosen settings could not be tried on specimens that no choice saw."
    parts = []
    for one in found:
        unit = f" {symbol(one.unit)}" if symbol(one.unit) else ""
        change = f"{abs(one.share) * 100:.0f} % {'smaller' if one.share >= 0 else 'larger'}"
        unsure = "" if one.is_clear else ", which may be chance"
        errors = f"{one.chosen['mae']:.3g} against {one.own['mae']:.3g}{unit}"
        parts.append(f"{one.target} {errors}, {change}{unsure}")
    better = [one.share > 0 for one in found]
    how = "err less than" if all(better) else "do not err less than"
    how = how if all(better) or not any(better) else "err differently from"
    advice = "" if any(better) else "; keep the settings of the file"
    return (
        f"On specimens that no choice saw, the chosen settings {how} those of the file: "
        f"mean absolute error of {', and of '.join(parts)}{advice}."
    )
