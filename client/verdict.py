"""Whether joining is worth it, for whom, and for whom not: each lab's error alone and joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtrit

from client.choice import SHARED, choose
from client.learning_curve import MOST_TIMES, specimens_for
from common.seeds import seed_for

FEWEST_GROUPS = 5
RESAMPLES = 4000
MOST_NAMED = 12
"""Labs in one clause of a sentence; of more, it says how many there are."""

CONFIDENCE = 0.95

JOIN, HOLD, NO_DIFFERENCE, TOO_FEW = "join", "hold", "no difference", "too few to tell"


@dataclass(frozen=True, kw_only=True)
class Gain:
    """How much smaller a lab's errors on one target are joined than alone.

    Attributes
    ----------
    lab, target, unit : str
    num_specimens, num_groups : int
        Held out, with this target measured; specimens that share material are one group.
    num_trained : int
        Trained on, in each fold.
    alone, together, joined : float
        Mean absolute errors, in the target's unit: of the lab's own head; of the shared head; and
        of the version of the shared head that the lab would use, chosen on other specimens.
    low, high : float
        Ends of the interval of the gain at 95 %: paired bootstrap over groups (Efron & Tibshirani
        1993), so that a specimen that is hard for both counts for neither.
    use : str
        Which version, by its name in `client.choice`.
    more_specimens : float or None
        So many more specimens of its own would have brought the lab the same gain; infinite where
        they would not, None where there is no gain or no telling.
    """

    lab: str
    target: str
    unit: str
    num_specimens: int
    num_groups: int
    num_trained: int
    alone: float
    together: float
    joined: float
    low: float
    high: float
    use: str = SHARED
    more_specimens: float | None = None

    @property
    def mean(self) -> float:
        """The gain, in the target's unit."""
        return self.alone - self.joined

    @property
    def share(self) -> float:
        """The gain as a share of the error alone."""
        return self.mean / max(self.alone, np.finfo(float).tiny)

    @property
    def most_specimens(self) -> int:
        """How many more specimens a learning curve is drawn out to."""
        return MOST_TIMES * self.num_trained

    @property
    def verdict(self) -> str:
        """``join`` or ``hold`` where the interval of the gain lies on one side of zero.

        Two to four independent specimens would make an interval of chance alone.
        """
        if self.num_groups < FEWEST_GROUPS:
            return TOO_FEW
        if self.low <= 0 <= self.high:
            return NO_DIFFERENCE
        return JOIN if self.mean > 0 else HOLD


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One lab's held-out specimens of one target, and what is predicted for them.

    Attributes
    ----------
    lab, target, unit : str
    measured, alone : ndarray of shape (n_specimens,), in the target's unit
        `alone` by a head that the lab trained by itself.
    versions : mapping of str to ndarray of shape (n_specimens,), in the target's unit
        By the versions of the shared head, ``SHARED`` among them.
    groups : ndarray of shape (n_specimens,), int64
    block : ndarray of shape (n_specimens,), int64
        What is found on some blocks is tried on the others; negative where never held out.
    seed : int
    num_trained : int
        Specimens with this target that the lab's own head was trained on.
    """

    lab: str
    target: str
    unit: str
    measured: np.ndarray
    alone: np.ndarray
    versions: Mapping[str, np.ndarray]
    groups: np.ndarray
    block: np.ndarray
    seed: int
    num_trained: int


def gain_of(found: Comparison, power: float) -> Gain | None:
    """Compare a lab's own head with what it would use after joining.

    Parameters
    ----------
    found : Comparison
    power : float
        With which the lab's own error falls with its number of specimens (`power_of`).

    Returns
    -------
    Gain or None
        None with fewer than two independent held-out specimens.
    """
    choice = choose(found.measured, found.versions, found.block)
    alone, together, joined = (
        np.abs(predicted - found.measured)
        for predicted in (found.alone, found.versions[SHARED], choice.predicted)
    )
    seen = np.isfinite(alone) & np.isfinite(joined) & (found.block >= 0)
    num_groups = len(set(found.groups[seen].tolist()))
    if num_groups < 2:
        return None
    seed = seed_for(found.seed, "bootstrap", found.lab, found.target)
    low, high = bootstrap((alone - joined)[seen], found.groups[seen], seed)
    errors = float(alone[seen].mean()), float(joined[seen].mean())
    return Gain(
        lab=found.lab,
        target=found.target,
        unit=found.unit,
        num_specimens=int(seen.sum()),
        num_groups=num_groups,
        num_trained=found.num_trained,
        alone=errors[0],
        together=float(together[seen].mean()),
        joined=errors[1],
        low=low,
        high=high,
        use=choice.version,
        more_specimens=specimens_for(errors, found.num_trained, power),
    )


def bootstrap(differences: np.ndarray, groups: np.ndarray, seed: int) -> tuple[float, float]:
    """Return the ends of the interval of a mean, drawing groups with replacement.

    Quantiles lie further out than at `CONFIDENCE`, by as much as a mean of so few groups asks for
    (the expanded percentile interval of Hesterberg 2015, doi 10.1080/00031305.2015.1089789). Where
    there is no difference at all, five groups still show one in 8 % of cases, by plain quantiles
    in 16 %; eight in 6 and 13 % (``tests/unit/test_bootstrap.py``).

    Parameters
    ----------
    differences : ndarray of shape (n_specimens,)
    groups : ndarray of shape (n_specimens,)
        Specimens of one group are drawn together.
    seed : int

    Examples
    --------
    >>> low, high = bootstrap(np.array([1.0, 2.0, 3.0]), np.arange(3), seed=0)
    >>> 1.0 <= low < 2.0 < high <= 3.0
    True
    """
    _, members = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(members, differences), np.bincount(members)
    number = len(sums)
    drawn = np.random.default_rng(seed).integers(number, size=(RESAMPLES, number))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    tail = (1 - CONFIDENCE) / 2
    if number > 1:
        tail = float(ndtr(stdtrit(number - 1, tail) * np.sqrt(number / (number - 1))))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def sentence(found: Sequence[Gain]) -> str:
    """Say in one plain sentence whether joining pays, for whom, and for whom not.

    Examples
    --------
    >>> small = Gain(lab="a", target="strength", unit="MPa", num_specimens=9, num_groups=9,
    ...              num_trained=36,
    ...              alone=8.0, together=6.5, joined=6.0, low=1.0, high=3.0)
    >>> large = Gain(lab="b", target="strength", unit="MPa", num_specimens=9, num_groups=9,
    ...              num_trained=36,
    ...              alone=4.0, together=4.0, joined=4.0, low=-1.0, high=1.0)
    >>> sentence([small, large])
    'Over all labs the error of strength is 17 % smaller joined than alone; joining pays for \
a (25 % smaller), and makes no clear difference for b.'
    """
    if not found:
        return "There is no lab with enough held-out specimens to say whether joining pays."
    targets = list(dict.fromkeys(gain.target for gain in found))
    overall = " and ".join(
        f"of {target} is {_change(_overall_share(found, target))}" for target in targets
    )
    clear = {gain.lab for gain in found if gain.verdict in (JOIN, HOLD)}
    unclear = [gain.lab for gain in found if gain.lab not in clear]
    clauses = [
        ("joining pays for", _changes(found, JOIN, several=len(targets) > 1)),
        ("does not pay for", _changes(found, HOLD, several=len(targets) > 1)),
        ("makes no clear difference for", list(dict.fromkeys(unclear))),
    ]
    said = ", and ".join(f"{words} {_named(labs)}" for words, labs in clauses if labs)
    lead = f"Over all labs the error {overall} joined than alone"
    return f"{lead}; {said if said.startswith('joining') else f'joining {said}'}."


def _named(labs: list[str]) -> str:
    return _and(labs) if len(labs) <= MOST_NAMED else f"{len(labs)} labs"


def _overall_share(found: Sequence[Gain], target: str) -> float:
    chosen = [gain for gain in found if gain.target == target]
    alone = sum(gain.alone * gain.num_specimens for gain in chosen)
    joined = sum(gain.joined * gain.num_specimens for gain in chosen)
    return (alone - joined) / max(alone, np.finfo(float).tiny)


def _change(share: float) -> str:
    size = f"{abs(share) * 100:.0f}" if abs(share) >= 0.005 else "less than 1"
    return f"{size} % {'smaller' if share >= 0 else 'larger'}"


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
