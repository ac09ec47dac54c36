"""Cutting specimens into virtual labs, so that each has enough and no split group is torn.

Specimens that must stay on one side of a split stay in one lab too: groups are dealt out, not
specimens. Labs get the names ``lab-001`` and so on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.errors import ConfigurationError
from common.seeds import seed_for

BINS = 10
"""Of a target's values, each with as many specimens: what classes are to Dirichlet partitions."""

DEFAULT_ALPHA, DEFAULT_EXPONENT = 0.5, 1.0


def names_of_labs(count: int) -> list[str]:
    """Return the names of so many virtual labs, which sort as they count.

    Examples
    --------
    >>> names_of_labs(2), names_of_labs(1200)[-1]
    (['lab-001', 'lab-002'], 'lab-1200')
    >>> names_of_labs(1200)[0]
    'lab-0001'
    """
    width = max(3, len(str(count)))
    return [f"lab-{number:0{width}d}" for number in range(1, count + 1)]


def require_enough(num_specimens: int, labs: int, least: int) -> None:
    """Raise ConfigurationError if so many specimens do not go round.

    Examples
    --------
    >>> require_enough(57, 4, 20)
    Traceback (most recent call last):
    ...
    common.errors.ConfigurationError: [simulation] labs = 4 cannot be cut from 57 specimens: each \
needs privacy.min_specimens = 20, so that at most 2 can be
    """
    if labs * least > num_specimens:
        raise ConfigurationError(
            f"[simulation] labs = {labs} cannot be cut from {num_specimens} specimens: each needs "
            f"privacy.min_specimens = {least}, so that at most {num_specimens // least} can be"
        )


def iid(groups: np.ndarray, labs: int, seed: int) -> np.ndarray:
    """Deal specimens out at random, to labs that are equal in size to within a group.

    Parameters
    ----------
    groups : ndarray of shape (n_specimens,), int64
    labs : int
    seed : int

    Returns
    -------
    ndarray of shape (n_specimens,), int64, in [0, labs)

    Examples
    --------
    >>> np.bincount(iid(np.arange(10), 3, seed=0)).tolist()
    [4, 3, 3]
    """
    return power_law(groups, labs, 0.0, 1, seed)


def power_law(groups: np.ndarray, labs: int, exponent: float, least: int, seed: int) -> np.ndarray:
    """Deal specimens out at random, to labs of sizes that fall off like ``k ** -exponent``.

    Each lab has `least` beforehand; the power law is of what is left.

    Parameters
    ----------
    groups, labs, seed
        As for `iid`.
    exponent : float
    least : int

    Returns
    -------
    ndarray of shape (n_specimens,), int64, in [0, labs)

    Examples
    --------
    >>> np.bincount(power_law(np.arange(100), 4, 1.0, 10, seed=0)).tolist()
    [39, 24, 20, 17]
    """
    members, sizes, generator = _units(groups, seed)
    weights = np.arange(1, labs + 1) ** -float(exponent)
    wanted = least + (len(groups) - labs * least) * weights / weights.sum()
    order = generator.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    lab_of_group = np.empty(len(sizes), dtype=np.int64)
    left = wanted.copy()
    for group in order:
        lab = int(np.argmax(left))
        lab_of_group[group] = lab
        left[lab] -= sizes[group]
    return np.asarray(lab_of_group[members])


def dirichlet(
    groups: np.ndarray, values: np.ndarray, labs: int, alpha: float, seed: int
) -> np.ndarray:
    """Give each lab a mix of its own of low and high values, drawn from a Dirichlet distribution.

    Labs are equal in size to within a group. Each draws the shares of `BINS` quantile bins from
    ``Dir(alpha * p)``, where p are the bins' shares of all specimens, and then one group after the
    other from a bin drawn by its shares, as far as bins last (Hsu et al. 2019, arXiv:1909.06335,
    there for classes of images). A small alpha makes labs unlike each other, a large one alike.

    Parameters
    ----------
    groups, labs, seed
        As for `iid`.
    values : ndarray of shape (n_specimens,)
        NaN where nothing was measured: these are a bin of their own.
    alpha : float

    Returns
    -------
    ndarray of shape (n_specimens,), int64, in [0, labs)
    """
    members, sizes, generator = _units(groups, seed)
    bins = _bins(members, len(sizes), values)
    weights = np.bincount(bins, weights=sizes)
    shares = generator.dirichlet(alpha * weights / weights.sum(), size=labs)
    waiting = [list(generator.permutation(np.flatnonzero(bins == b))) for b in range(len(weights))]
    lab_of_group = np.empty(len(sizes), dtype=np.int64)
    load = np.zeros(labs, dtype=np.int64)
    for _ in range(len(sizes)):
        lab = int(np.argmin(load))
        chances = np.where([bool(groups) for groups in waiting], shares[lab], 0.0)
        if chances.sum() <= 0:
            # the bins of this lab are used up: whatever is left
            chances = np.array([len(groups) for groups in waiting], dtype=float)
        drawn = generator.choice(len(waiting), p=chances / chances.sum())
        group = waiting[drawn].pop()
        lab_of_group[group] = lab
        load[lab] += sizes[group]
    return np.asarray(lab_of_group[members])


def require_whole_groups_go_round(of_each: np.ndarray, names: Sequence[str], least: int) -> None:
    """Raise ConfigurationError if groups that stay whole have left a lab with too few specimens."""
    counts = np.bincount(of_each, minlength=len(names))
    fewest = int(np.argmin(counts))
    if counts[fewest] < least:
        raise ConfigurationError(
            f"[simulation] labs = {len(names)}: {names[fewest]} would have {counts[fewest]} "
            f"specimens, fewer than privacy.min_specimens = {least}, since specimens that share "
            "material stay together; ask for fewer labs"
        )


def _units(groups: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """Return the group of each specimen from 0 on, the groups' sizes, and what to draw from."""
    _, members = np.unique(groups, return_inverse=True)
    return members, np.bincount(members), np.random.default_rng(seed_for(seed, "partition"))


def _bins(members: np.ndarray, num_groups: int, values: np.ndarray) -> np.ndarray:
    """Return each group's bin, by the mean of its values."""
    seen = np.isfinite(values)
    counts = np.bincount(members[seen], minlength=num_groups)
    totals = np.bincount(members[seen], weights=values[seen], minlength=num_groups)
    known = counts > 0
    means = totals[known] / counts[known]
    inner = np.quantile(means, np.linspace(0, 1, BINS + 1)[1:-1]) if known.any() else np.empty(0)
    found = np.full(num_groups, BINS)
    found[known] = np.searchsorted(inner, means, side="right")
    return np.unique(found, return_inverse=True)[1]
