"""Whether a lab's folder can be split as a run splits it, and what of it may then be told."""

from __future__ import annotations

import numpy as np

from client.dataset import Dataset
from client.findings import Findings, RefusedError, printable
from client.lab import HELD_OUT_FOLDS
from client.splits import fold_of_each, held_out_of
from common.federation import Federation


def hold_out(groups: np.ndarray, federation: Federation, lab: str) -> np.ndarray:
    """Return which of a lab's specimens are held out: a fifth of them, groups together.

    Parameters
    ----------
    groups : ndarray of shape (n_specimens,), int64
    federation : Federation
    lab : str
        Its name; each lab shuffles by itself.

    Returns
    -------
    ndarray of shape (n_specimens,), bool

    Raises
    ------
    RefusedError
        If there are fewer groups than fifths.
    """
    num_groups = len(np.unique(groups))
    if num_groups < HELD_OUT_FOLDS:
        raise RefusedError(
            f"{num_groups} independent specimens (those that share material count once), and one "
            f"in {HELD_OUT_FOLDS} is held out",
            f"at least {HELD_OUT_FOLDS} are needed: add specimens, or give split_group a column "
            "that tells more of them apart",
        )
    seed = federation.training.seed
    return held_out_of(fold_of_each(groups, folds=HELD_OUT_FOLDS, lab=lab, seed=seed))


def check_held_out(
    dataset: Dataset, federation: Federation, findings: Findings, lab: str | None = None
) -> None:
    """Note whether the lab can hold out a fifth, and what it will not be told of for being few.

    Parameters
    ----------
    dataset : Dataset
    federation : Federation
    findings : Findings
    lab : str, optional
        Under which the lab is enrolled; the name in its folder otherwise.
    """
    file, least = printable(dataset.settings.data.table), federation.privacy.min_specimens
    try:
        held_out = hold_out(dataset.groups, federation, lab or dataset.name)
    except RefusedError as why:
        findings.refuse(file, why)
        return
    measured = np.isfinite(dataset.targets[held_out]).sum(axis=0)
    few = {
        name: int(count)
        for name, count in zip(federation.targets, measured, strict=True)
        if 0 < count < least
    }
    if few:
        shown = ", ".join(f"{count} values of {name}" for name, count in few.items())
        findings.fix(
            file,
            f"{shown} will be held out, fewer than min_specimens = {least}: no errors of these "
            "leave the lab, and the coordinator cannot make intervals of them",
            f"nothing, if that is fine: the lab's own report is made of them; about "
            f"{HELD_OUT_FOLDS * least} specimens would be enough, or agree on a smaller "
            "min_specimens",
        )
    else:
        findings.passed(file, f"{int(held_out.sum())} specimens will be held out")
