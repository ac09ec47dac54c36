"""Which specimens each study of a sweep sees, and which it is tested on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from client.lab import HELD_OUT_FOLDS
from client.specimens import Specimens
from common.errors import ConfigurationError, LabDataError
from simulation.consortium import Consortium
from simulation.experiment import folds_of_labs
from simulation.sweep.settings import Sweep
from simulation.sweep.trial import ABSENT, HELD_OUT, TRAINED_ON, Roles


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study tries its trials on.

    Attributes
    ----------
    name : str
    inner : tuple of Roles
        A trial is trained once for each; they hold out every specimen of the study once.
    outer : Roles or None
        Trained on all of the study's specimens, tried on those that it never saw.
    """

    name: str
    inner: tuple[Roles, ...]
    outer: Roles | None


def plans_of(consortium: Consortium, sweep: Sweep) -> list[Plan]:
    """Return what each study sees, and what it is tested on.

    Raises
    ------
    ConfigurationError
        If a lab has fewer independent specimens than folds.
    """
    outer = _folds(consortium, sweep.folds or HELD_OUT_FOLDS, "folds")
    plans = []
    for fold in range(sweep.folds or 1):
        held_out = [of_each == fold for of_each in outer]
        name = "choice" if sweep.folds is None else f"fold {fold + 1}"
        plans.append(_plan(name, consortium, held_out, sweep))
    if sweep.folds is not None:
        nothing = [np.zeros(len(lab), dtype=bool) for lab in consortium.labs]
        plans.append(_plan("choice", consortium, nothing, sweep))
    return plans


def _plan(name: str, consortium: Consortium, held_out: list[np.ndarray], sweep: Sweep) -> Plan:
    seen = Consortium(
        federation=consortium.federation,
        labs=tuple(lab.take(~rows) for lab, rows in zip(consortium.labs, held_out, strict=True)),
    )
    inner_folds = _folds(seen, sweep.inner_folds, "inner_folds")
    inner = tuple(
        tuple(
            _inner_roles(lab, rows, of_each == fold)
            for lab, rows, of_each in zip(consortium.labs, held_out, inner_folds, strict=True)
        )
        for fold in range(sweep.inner_folds)
    )
    outer: Roles = tuple(np.where(rows, HELD_OUT, TRAINED_ON).astype(np.int8) for rows in held_out)
    has_test = any(rows.any() for rows in held_out)
    return Plan(name=name, inner=inner, outer=outer if has_test else None)


def _inner_roles(lab: Specimens, absent: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    roles = np.full(len(lab), ABSENT, dtype=np.int8)
    roles[~absent] = np.where(held_out, HELD_OUT, TRAINED_ON)
    return roles


def _folds(consortium: Consortium, folds: int, key: str) -> list[np.ndarray]:
    try:
        return folds_of_labs(consortium, folds)
    except LabDataError as error:
        found = str(error).partition(";")[0]
        raise ConfigurationError(
            f"{found}, which a sweep asks for by {key} = {folds}; lower it, or leave the lab out"
        ) from error
