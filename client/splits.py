"""Folds inside one lab: groups stay together, and the seed decides."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from common.counts import HELD_OUT_ONE_IN
from common.errors import LabDataError
from common.seeds import seed_for


def fold_of_each(
    groups: np.ndarray, *, folds: int, lab: str, seed: int, taken: Mapping[int, int] | None = None
) -> np.ndarray:
    """Assign every specimen to a fold.

    Groups are shuffled, then dealt out largest first, each to the fold that has the fewest
    specimens yet, so that folds differ in size by no more than a group. Which fold comes first
    is drawn too: the largest group is not always in the same one.

    Parameters
    ----------
    groups : ndarray of shape (n_specimens,), int64
    folds : int
    lab : str
        Its name; each lab shuffles by itself.
    seed : int
    taken : mapping of int to int, optional
        Groups whose fold another lab has fixed, where labs share material.

    Returns
    -------
    ndarray of shape (n_specimens,), int64, in [0, folds)

    Raises
    ------
    LabDataError
        If there are fewer groups than folds.

    Examples
    --------
    >>> folds = fold_of_each(np.array([0, 0, 1, 2, 3]), folds=2, lab="a", seed=0)
    >>> bool(folds[0] == folds[1]), sorted(np.bincount(folds).tolist())
    (True, [2, 3])
    """
    names, members = np.unique(groups, return_inverse=True)
    if len(names) < folds:
        raise LabDataError(
            f"{lab}: {len(names)} independent specimens cannot be split into {folds} folds; "
            "leave the lab out, or choose fewer with --folds"
        )
    sizes = np.bincount(members)
    generator = np.random.default_rng(seed_for(seed, "folds", lab))
    first_choice = generator.permutation(folds)
    order = generator.permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    fixed = [(taken or {}).get(int(name), -1) for name in names]
    fold_of_group = np.array(fixed, dtype=np.int64)
    load = np.zeros(folds, dtype=np.int64)
    np.add.at(load, fold_of_group[fold_of_group >= 0], sizes[fold_of_group >= 0])
    for group in order[fold_of_group[order] < 0]:
        fold_of_group[group] = first_choice[np.argmin(load[first_choice])]
        load[fold_of_group[group]] += sizes[group]
    return fold_of_group[members]


def held_out_of(fold: np.ndarray) -> np.ndarray:
    """Return which specimens of a lab are held out: one fold, and never more than a third.

    It is the first fold, unless a group that is half of the lab fills that one: a head would be
    trained on what is left, and the coordinator lets in no sums over more than a third.

    Parameters
    ----------
    fold : ndarray of shape (n_specimens,), int64
        Of each specimen; of three folds or more, one is a third or less.

    Returns
    -------
    ndarray of shape (n_specimens,), bool

    Examples
    --------
    >>> held_out_of(np.array([0, 0, 0, 0, 1, 1, 2])).tolist()
    [False, False, False, False, True, True, False]
    """
    small = HELD_OUT_ONE_IN * np.bincount(fold) <= len(fold)
    held_out: np.ndarray = fold == np.argmax(small)
    return held_out
