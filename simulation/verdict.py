"""Whether joining pays, for whom, and for whom not: each lab's own error, alone and together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from simulation.experiment import Outcome

FEWEST_GROUPS = 5

PAYS, COSTS, UNCLEAR = "pays", "costs", "unclear"


@dataclass(frozen=True, kw_only=True)
class Gain:
    """How much smaller a lab's errors on one target are together than alone.

    Attributes
    ----------
    lab, target, unit : str
    num_specimens, num_groups : int
        Held out, with this target measured; specimens that share material are one group.
    alone, together : float
        Mean absolute errors of the local and the federated head, in the target's unit.
    standard_error : float
        Of the difference of the two over groups; specimens are paired, so that a hard one weighs
        on both sides.
    """

    lab: str
    target: str
    unit: str
    num_specimens: int
    num_groups: int
    alone: float
    together: float
    standard_error: float

    @property
    def mean(self) -> float:
        """The gain, in the target's unit."""
        return self.alone - self.together

    @property
    def share(self) -> float:
        """The gain as a share of the error alone."""
        return self.mean / max(self.alone, np.finfo(float).tiny)

    @property
    def verdict(self) -> str:
        """``pays`` or ``costs`` where a paired t-test says so at 5 % (two-sided), else ``unclear``.

        Two to four specimens would make a test of chance alone: they are always unclear.
        """
        if self.num_groups < FEWEST_GROUPS:
            return UNCLEAR
        critical = stats.t.ppf(0.975, self.num_groups - 1)
        if abs(self.mean) <= critical * self.standard_error:
            return UNCLEAR
        return PAYS if self.mean > 0 else COSTS


def gains(outcome: Outcome) -> list[Gain]:
    """Compare local with federated for each target and lab that measures it, target by target.

    Empty unless both modes ran. A lab needs two independent held-out specimens to be compared.
    """
    if not {"local", "federated"} <= outcome.predicted.keys():
        return []
    federation = outcome.consortium.federation
    found = []
    for column, (name, target) in enumerate(federation.targets.items()):
        for index, lab in enumerate(outcome.consortium.labs):
            measured = lab.targets[:, column]
            alone = np.abs(outcome.predicted["local"][index][:, column] - measured)
            together = np.abs(outcome.predicted["federated"][index][:, column] - measured)
            seen = np.isfinite(alone) & np.isfinite(together)
            if len(set(lab.groups[seen].tolist())) >= 2:
                num_groups, error = _standard_error((alone - together)[seen], lab.groups[seen])
                gain = Gain(
                    lab=lab.lab,
                    target=name,
                    unit=target.unit,
                    num_specimens=int(seen.sum()),
                    num_groups=num_groups,
                    alone=float(alone[seen].mean()),
                    together=float(together[seen].mean()),
                    standard_error=error,
                )
                found.append(gain)
    return found


def _standard_error(differences: np.ndarray, groups: np.ndarray) -> tuple[int, float]:
    """Count the groups, and return the standard error of the mean over their means."""
    _, members = np.unique(groups, return_inverse=True)
    means = np.bincount(members, differences) / np.bincount(members)
    return len(means), float(means.std(ddof=1) / np.sqrt(len(means)))


def sentence(found: Sequence[Gain]) -> str:
    """Say in one plain sentence whether joining pays, for whom, and for whom not.

    Examples
    --------
    >>> small = Gain(lab="a", target="strength", unit="MPa", num_specimens=9, num_groups=9,
    ...              alone=8.0, together=6.0, standard_error=0.5)
    >>> large = Gain(lab="b", target="strength", unit="MPa", num_specimens=9, num_groups=9,
    ...              alone=4.0, together=4.0, standard_error=0.5)
    >>> sentence([small, large])
    'Over all labs the error of strength is 17 % smaller together than alone; joining pays for \
a (25 % smaller), and makes no clear difference for b.'
    """
    if not found:
        return "There is no lab with enough held-out specimens to say whether joining pays."
    targets = list(dict.fromkeys(gain.target for gain in found))
    overall = " and ".join(
        f"of {target} is {_change(_overall_share(found, target))}" for target in targets
    )
    clear = {gain.lab for gain in found if gain.verdict != UNCLEAR}
    unclear = [gain.lab for gain in found if gain.lab not in clear]
    clauses = [
        ("joining pays for", _changes(found, PAYS, several=len(targets) > 1)),
        ("does not pay for", _changes(found, COSTS, several=len(targets) > 1)),
        ("makes no clear difference for", list(dict.fromkeys(unclear))),
    ]
    said = ", and ".join(f"{words} {_and(labs)}" for words, labs in clauses if labs)
    lead = f"Over all labs the error {overall} together than alone"
    return f"{lead}; {said if said.startswith('joining') else f'joining {said}'}."


def _overall_share(found: Sequence[Gain], target: str) -> float:
    chosen = [gain for gain in found if gain.target == target]
    alone = sum(gain.alone * gain.num_specimens for gain in chosen)
    together = sum(gain.together * gain.num_specimens for gain in chosen)
    return (alone - together) / max(alone, np.finfo(float).tiny)


def _change(share: float) -> str:
    return f"{abs(share) * 100:.0f} % {'smaller' if share >= 0 else 'larger'}"


def _changes(found: Sequence[Gain], verdict: str, *, several: bool) -> list[str]:
    """Name each lab with this verdict, and for which target if there are several."""
    labs: dict[str, list[str]] = {}
    for gain in found:
        if gain.verdict == verdict:
            words = f"{gain.target} {_change(gain.share)}" if several else _change(gain.share)
            labs.setdefault(gain.lab, []).append(words)
    return [f"{lab} ({', '.join(words)})" for lab, words in labs.items()]


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
