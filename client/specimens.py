"""A lab's specimens as arrays: what the head trains on; it never leaves the lab."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Specimens:
    """Specimens of one lab, ready to train on.

    Attributes
    ----------
    lab : str
    ids : tuple of str
    features : ndarray of shape (n_specimens, n_features), float32
    targets : ndarray of shape (n_specimens, n_targets), float64
        In the federation's units; NaN where not measured.
    groups : ndarray of shape (n_specimens,), int64
        Specimens with one number stay on one side of a split.
    """

    lab: str
    ids: tuple[str, ...]
    features: np.ndarray
    targets: np.ndarray
    groups: np.ndarray

    def __len__(self) -> int:
        """Return the number of specimens."""
        return len(self.ids)

    def take(self, chosen: np.ndarray) -> Specimens:
        """Return the specimens where `chosen`, a boolean array of shape (n_specimens,), holds."""
        return Specimens(
            lab=self.lab,
            ids=tuple(id_ for id_, keep in zip(self.ids, chosen, strict=True) if keep),
            features=self.features[chosen],
            targets=self.targets[chosen],
            groups=self.groups[chosen],
        )
