"""A lab that takes part: its agreement, the specimens it trains on, and those it holds out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from client.specimens import Specimens
from common.errors import RequestError
from common.federation import Federation

HELD_OUT_FOLDS = 5
"""One fifth of the specimens is held out unless folds are asked for."""


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
    model_path : Path or None
        The folder that the model of a run is kept in; a virtual lab keeps none.
    """

    federation: Federation
    training: Specimens
    held_out: Specimens
    min_specimens: int | None = None
    model_path: Path | None = None

    @property
    def needed(self) -> int:
        """How many specimens anything that leaves the lab is at least about."""
        return max(self.min_specimens or 0, self.federation.privacy.min_specimens)

    @property
    def shared_targets(self) -> np.ndarray:
        """Which targets the lab has measured often enough that anything of them may leave it.

        Returns
        -------
        ndarray of shape (n_targets,), bool
            At least `needed` values, held-out ones counted too.
        """
        targets = np.concatenate([self.training.targets, self.held_out.targets])
        measured: np.ndarray = np.isfinite(targets).sum(axis=0)
        return measured >= self.needed

    @property
    def shared_training_targets(self) -> np.ndarray:
        """Targets of the training specimens; NaN throughout where too few were measured.

        Returns
        -------
        ndarray of shape (n_training, n_targets), in the federation's units
        """
        return np.where(self.shared_targets, self.training.targets, np.nan)

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
