"""Folds inside one lab: groups stay together, and the seed decides."""

from __future__ import annotations

import numpy as np

from common.errors import LabDataError
from common.seeds import seed_for


def fold_of_each(groups: np.ndarray, *, folds: int, lab: str, seed: int) -> np.ndarray:
    """Assign every specimen to a fold.

    Groups are shuffled, then dealt out largest first, each to the fold that has the fewest
    specimens yet, so that folds differ in size by no more than a group.

    Parameters
    ----------
    groups : ndarray of shape (n_specimens,), int64
    folds : int
    lab : str
        Its name; each lab shuffles by itself.
    seed : int

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
            "use fewer folds"
        )
    sizes = np.bincount(members)
    order = np.random.default_rng(seed_for(seed, "folds", lab)).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    fold_of_group = np.zeros(len(names), dtype=np.int64)
    load = np.zeros(folds, dtype=np.int64)
    for group in order:
        fold_of_group[group] = np.argmin(load)
        load[fold_of_group[group]] += sizes[group]
    return fold_of_group[members]
