"""A lab that takes part: its agreement, the specimens it trains on, and those it holds out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil
from pathlib import Path

import numpy as np

from client.specimens import Specimens
from common.errors import RequestError
from common.federation import Federation
from common.standardise import Standardiser

HELD_OUT_FOLDS = 5
"""One fifth of the specimens is held out unless folds are asked for."""

TRAINING_SHARE = 0.5
"""Of `min_specimens` that sums over training specimens are at least about: about four fifths are
trained on, and fewer where groups are large."""


@dataclass(frozen=True, kw_only=True)
class Standardised:
    """A lab's training specimens, as this standardiser makes them.

    Attributes
    ----------
    standardiser : Standardiser
    features : ndarray of shape (n_training, n_features), float32
    targets : ndarray of shape (n_training, n_targets), float32, NaN where nothing may be told
    """

    standardiser: Standardiser
    features: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Lab:
    """One lab in one run.

    Attributes
    ----------
    federation : Federation
    training, held_out : Specimens
        Never share a specimen, nor a group.
    min_specimens : int or None
        What the lab itself asks for, where that is more than the federation does.
    name_in_card : bool
        Whether the released model may name the lab, as a virtual one; who opens another says so.
    model_path : Path or None
        The folder that the model of a run is kept in; a virtual lab keeps none.
    judges_later : bool
        Whether somebody judges what a kept model is worth once the run is over, instead of the app
        before it says that the model is kept.
    """

    federation: Federation
    training: Specimens
    held_out: Specimens
    min_specimens: int | None = None
    name_in_card: bool = True
    model_path: Path | None = None
    judges_later: bool = False
    _kept: list[Standardised] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def needed(self) -> int:
        """How many specimens anything that leaves the lab is at least about."""
        return max(self.min_specimens or 0, self.federation.privacy.min_specimens)

    @property
    def needed_in_training(self) -> int:
        """How many training specimens a sum over them is at least about."""
        return ceil(TRAINING_SHARE * self.needed)

    @property
    def shared_targets(self) -> np.ndarray:
        """Which targets the lab has measured often enough that anything of them may leave it.

        Returns
        -------
        ndarray of shape (n_targets,), bool
            At least `needed` values, held-out ones counted too, and `needed_in_training` of those
            that are trained on.
        """
        trained: np.ndarray = np.isfinite(self.training.targets).sum(axis=0)
        measured = trained + np.isfinite(self.held_out.targets).sum(axis=0)
        enough: np.ndarray = (measured >= self.needed) & (trained >= self.needed_in_training)
        return enough

    @cached_property
    def counted(self) -> np.ndarray:
        """Which training specimens stand in the sums of products of each target.

        Sums of two targets that differ in one specimen would tell it, feature by feature. Specimens
        are told apart by their targets only where enough have the same ones.

        Returns
        -------
        ndarray of shape (n_training, n_targets), bool
        """
        measured = np.isfinite(self.training.targets) & self.shared_targets
        return indistinct(measured, self.needed_in_training)

    @property
    def shared_training_targets(self) -> np.ndarray:
        """Targets of the training specimens, NaN where nothing may be told of them.

        Returns
        -------
        ndarray of shape (n_training, n_targets), in the federation's units
        """
        return np.where(self.shared_targets & self.counted, self.training.targets, np.nan)

    def standardised(self, standardiser: Standardiser) -> Standardised:
        """Return the training specimens standardised; each round of a run asks for the same."""
        if not self._kept or not self._kept[0].standardiser.equals(standardiser):
            made = Standardised(
                standardiser=standardiser,
                features=standardiser.features(self.training.features),
                targets=standardiser.targets(self.shared_training_targets),
            )
            self._kept[:] = [made]
        return self._kept[0]

    def told_held_out(self) -> Specimens:
        """Return the held-out specimens with those targets alone that sums may be told of.

        Raises
        ------
        RequestError
            If no target was measured on as many as are needed.
        """
        measured = np.isfinite(self.held_out.targets).sum(axis=0)
        if not (measured >= self.needed).any():
            raise RequestError(
                f"{measured.max()} held-out specimens are fewer than min_specimens = "
                f"{self.needed}; nothing is sent"
            )
        told = np.where(measured >= self.needed, self.held_out.targets, np.nan)
        return replace(self.held_out, targets=told)

    @property
    def name(self) -> str:
        """The lab's name."""
        return self.training.lab


def split_lab(specimens: Specimens, federation: Federation, held_out: np.ndarray) -> Lab:
    """Hold out some of a lab's specimens.

    Parameters
    ----------
    specimens : Specimens
    federation : Federation
    held_out : ndarray of shape (n_specimens,), bool
    """
    return Lab(
        federation=federation,
        training=specimens.take(~held_out),
        held_out=specimens.take(held_out),
    )


def require_cross_evaluation(federation: Federation) -> None:
    """Raise RequestError unless it was agreed that labs' own heads are tried at each other."""
    if not federation.privacy.cross_evaluation:
        raise RequestError("the agreement is without cross_evaluation; no lab's own head is tried")


def indistinct(measured: np.ndarray, at_least: int) -> np.ndarray:
    """Return, for each specimen, the targets of the nearest pattern that enough specimens have.

    Parameters
    ----------
    measured : ndarray of shape (n_specimens, n_targets), bool
    at_least : int
        So many specimens make a pattern; if none has as many, the commonest is everyone's.

    Returns
    -------
    ndarray of shape (n_specimens, n_targets), bool
        Each pattern in it is that of at least so many specimens, or of all.

    Examples
    --------
    >>> indistinct(np.array([[True, True]] * 4 + [[True, False]]), 2)[-1].tolist()
    [True, True]
    >>> indistinct(np.array([[True, True]] * 4 + [[True, False]] * 2), 2)[-1].tolist()
    [True, False]
    """
    if measured.all():
        return measured
    patterns, of_each, counts = np.unique(measured, axis=0, return_inverse=True, return_counts=True)
    # the commonest first: of two that are as near, it is taken
    order = np.argsort(-counts, kind="stable")
    common = patterns[order][: max(1, int((counts >= at_least).sum()))]
    differing = (patterns[:, None] != common).sum(axis=2)
    found: np.ndarray = common[differing.argmin(axis=1)][of_each]
    return found
