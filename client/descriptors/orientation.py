"""Orientation: which way the structure runs, and how much of it runs that way."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from structure_tensor import structure_tensor_2d

GRADIENT_PX = 1.0
NEIGHBOURHOOD_PX = 3.0
HALVED_FROM_PX = 128
"""Shorter side from which the micrograph is halved first, which is four times as fast."""

# contrast below which a micrograph has no structure, in grey values per px, squared
_NOTHING = 1e-10


@dataclass(frozen=True, eq=False)
class Orientation:
    """Directions of a micrograph, from its structure tensor.

    The direction of a structure is across its gradient. Angles go from the rows' direction,
    counter-clockwise as seen, and are axes: θ and θ + 180° are one. Each pixel counts by the
    difference of its tensor's eigenvalues, so that flat areas and corners count little.

    Attributes
    ----------
    energy : float
        Sum of the tensors' traces.
    doubled : ndarray of shape (height, width, 2)
        Difference of the eigenvalues times cos 2θ and sin 2θ.
    """

    energy: float
    doubled: np.ndarray

    @cached_property
    def weights(self) -> np.ndarray:
        """Difference of the eigenvalues, of shape (height, width)."""
        # not cv2.magnitude, whose last bits depend on where the memory begins
        return np.asarray(np.sqrt(self.doubled[..., 0] ** 2 + self.doubled[..., 1] ** 2))

    @cached_property
    def _total(self) -> float:
        return float(self.weights.sum(dtype=np.float64))

    @cached_property
    def mean(self) -> np.ndarray:
        """Mean of cos 2θ and of sin 2θ: twice the orientation tensor's deviator."""
        return np.asarray(self.doubled.sum(axis=(0, 1), dtype=np.float64) / self._total)

    @property
    def order(self) -> float:
        """Order parameter ⟨cos 2(θ - mean)⟩: 1 for one direction, 0 for none before others."""
        return float(min(np.hypot(*self.mean), 1.0))

    @property
    def coherency(self) -> float:
        """Share of the gradients' energy that has a direction, 0 to 1."""
        return min(self._total / self.energy, 1.0)

    @property
    def spread(self) -> float:
        """Root mean square angle to the mean direction, in degrees; 52° if all are alike."""
        cos, sin = self.mean / max(np.hypot(*self.mean), 1e-12)
        turn = np.array([[cos, -sin], [sin, cos]], dtype=np.float32)
        along, across = np.moveaxis(self.doubled @ turn, -1, 0)
        angles = np.degrees(np.arctan2(across, along)) / 2
        return float(np.sqrt(np.sum(self.weights * angles**2, dtype=np.float64) / self._total))


def find_orientation(flat: np.ndarray) -> Orientation | None:
    """Compute the directions of a micrograph.

    Parameters
    ----------
    flat : ndarray of shape (height, width), float32
        Grey values under even light.

    Returns
    -------
    Orientation or None
        None without any contrast.

    References
    ----------
    Bigün, Granlund (1987), Optimal orientation detection of linear symmetry, ICCV; Advani, Tucker
    (1987), The use of tensors to describe and predict fiber orientation, J. Rheol. 31.

    Examples
    --------
    >>> y, x = np.mgrid[:64, :64]
    >>> angle = np.radians(30)  # stripes that rise by 30° to the right
    >>> stripes = 0.5 + 0.4 * np.sin((x * np.sin(angle) + y * np.cos(angle)) / 3)
    >>> found = find_orientation(stripes.astype(np.float32))
    >>> found.mean.round(2).tolist(), round(found.order, 2), round(found.coherency, 2)
    ([0.5, 0.86], 1.0, 0.99)
    """
    height, width = flat.shape
    if min(height, width) >= HALVED_FROM_PX:
        flat = cv2.resize(flat, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    # the library's x is the rows' index: tensor[0] is down the rows, tensor[1] along them
    tensor = structure_tensor_2d(flat, GRADIENT_PX, NEIGHBOURHOOD_PX, truncate=3.0)
    energy = float((tensor[0] + tensor[1]).sum(dtype=np.float64))
    if energy < _NOTHING * flat.size:
        return None
    # rows count downwards, which turns the sign of the mixed term; across is a sign on both
    doubled = np.stack([tensor[0] - tensor[1], 2 * tensor[2]], axis=-1)
    if not doubled.any():
        return None
    return Orientation(energy, doubled)
