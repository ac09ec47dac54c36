"""Voids: share, number and size."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

SMALLEST_PX = 7
"""Diameter below which a dark spot is no void where no fibre gives the scale."""

# of a fibre's diameter: what is narrower is a crack or a seam
_SMALLEST = 0.35


@dataclass(frozen=True, kw_only=True, eq=False)
class Regions:
    """Connected regions of one kind.

    Attributes
    ----------
    mask : ndarray of shape (height, width), uint8, 0 or 1
    areas : ndarray of shape (num_regions,), in px²
    is_counted : ndarray of shape (num_regions,), bool
        Not for what the upper or left border cuts, so that neighbouring micrographs together
        count each region once.
    is_whole : ndarray of shape (num_regions,), bool
        Not for what any border cuts.
    """

    mask: np.ndarray
    areas: np.ndarray
    is_counted: np.ndarray
    is_whole: np.ndarray

    @property
    def fraction(self) -> float:
        """Share of the area."""
        return float(self.areas.sum()) / self.mask.size

    @property
    def number_density(self) -> float:
        """Number per px²."""
        return int(self.is_counted.sum()) / self.mask.size

    @property
    def largest_diameter(self) -> float | None:
        """Diameter of the circle with the area of the largest region, in px."""
        return float(_diameters(self.areas).max()) if len(self.areas) else None

    @property
    def median_diameter(self) -> float | None:
        """Median of the diameters of the regions that no border spoils, in px."""
        areas = self.areas[self.is_whole] if self.is_whole.any() else self.areas
        return float(np.median(_diameters(areas))) if len(areas) else None


def regions(mask: np.ndarray) -> Regions:
    """Find the connected regions of a mask.

    References
    ----------
    Gundersen (1977), Notes on the estimation of the numerical density of arbitrary profiles:
    the edge effect, J. Microsc. 111.

    Examples
    --------
    >>> mask = np.zeros((20, 20), dtype=np.uint8)
    >>> mask[4:8, 4:8], mask[10:12, 0:3] = 1, 1
    >>> found = regions(mask)
    >>> found.areas.tolist(), found.is_counted.tolist(), round(found.largest_diameter, 2)
    ([16, 6], [True, False], 4.51)
    """
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    boxes = stats[1:]
    is_counted = (boxes[:, cv2.CC_STAT_LEFT] > 0) & (boxes[:, cv2.CC_STAT_TOP] > 0)
    right = boxes[:, cv2.CC_STAT_LEFT] + boxes[:, cv2.CC_STAT_WIDTH]
    lower = boxes[:, cv2.CC_STAT_TOP] + boxes[:, cv2.CC_STAT_HEIGHT]
    return Regions(
        mask=mask,
        areas=boxes[:, cv2.CC_STAT_AREA],
        is_counted=is_counted,
        is_whole=is_counted & (right < mask.shape[1]) & (lower < mask.shape[0]),
    )


def void_mask(dark: np.ndarray, fibre_diameter: float | None) -> np.ndarray:
    """Keep of the dark pixels those that a disc covers which is too wide for a crack.

    Parameters
    ----------
    dark : ndarray of shape (height, width), uint8, 0 or 1
    fibre_diameter : float or None, in px

    Returns
    -------
    ndarray of shape (height, width), uint8, 0 or 1

    References
    ----------
    Paciornik, d'Almeida (2009), Measurement of void content and distribution in composite
    materials through digital microscopy, J. Compos. Mater. 43.

    Examples
    --------
    >>> dark = np.zeros((40, 40), dtype=np.uint8)
    >>> dark[:, 5:8], dark[20:32, 20:32] = 1, 1
    >>> kept = void_mask(dark, None)
    >>> int(kept[:, :10].sum()), int(kept.sum()) > 120
    (0, True)
    """
    width = SMALLEST_PX if fibre_diameter is None else max(_SMALLEST * fibre_diameter, 3)
    side = int(width) | 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return np.asarray(cv2.morphologyEx(dark, cv2.MORPH_OPEN, disc))


def _diameters(areas: np.ndarray) -> np.ndarray:
    return np.sqrt(4 / np.pi * areas)
