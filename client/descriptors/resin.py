"""Resin: pockets that hold no fibre, and the free paths between fibres."""

from __future__ import annotations

import cv2
import numpy as np

POCKET_RADIUS = 1.25
"""Radius of the disc that fits into a pocket and not between fibres, in fibre diameters."""


def pocket_mask(resin: np.ndarray, fibre_diameter: float) -> np.ndarray:
    """Open the resin by a disc whose radius is 1.25 fibre diameters: what is left is a pocket.

    An opening by a large disc is two distances: where a disc's centre fits, and what is within
    its radius of such a centre.

    Parameters
    ----------
    resin : ndarray of shape (height, width), uint8, 0 or 1
    fibre_diameter : float, in px

    Returns
    -------
    ndarray of shape (height, width), uint8, 0 or 1

    References
    ----------
    Matheron (1975), Random sets and integral geometry: openings by discs, granulometry.

    Examples
    --------
    >>> resin = np.zeros((40, 60), dtype=np.uint8)
    >>> resin[10:30, 10:30], resin[:, 40:45] = 1, 1
    >>> pockets = pocket_mask(resin, 6.0)
    >>> bool(pockets[20, 20]), bool(pockets[20, 42])
    (True, False)
    """
    radius = POCKET_RADIUS * fibre_diameter
    fits = cv2.distanceTransform(resin, cv2.DIST_L2, cv2.DIST_MASK_5) > radius
    if not fits.any():
        return np.zeros_like(resin)
    beyond = np.asarray(~fits, dtype=np.uint8)
    away = cv2.distanceTransform(beyond, cv2.DIST_L2, cv2.DIST_MASK_5)
    return np.asarray(resin & (away < radius), dtype=np.uint8)


def mean_chord(phase: np.ndarray) -> float | None:
    """Return the mean length of the chords that rows and columns cut in a phase.

    A chord has two ends; those beyond the border are not seen, so that a chord that the border
    cuts counts as half a one, which keeps the mean right.

    Parameters
    ----------
    phase : ndarray of shape (height, width), uint8, 0 or 1

    Returns
    -------
    float, in px, or None without the phase

    References
    ----------
    Underwood (1970), Quantitative stereology, chapter 4; ASTM E112 for the border.

    Examples
    --------
    >>> stripes = np.tile(np.array([[0], [1], [1], [1]], dtype=np.uint8), (50, 100))
    >>> round(mean_chord(stripes[2:-2])), mean_chord(np.zeros_like(stripes))
    (6, None)
    """
    area = int(cv2.countNonZero(phase))
    if not area:
        return None
    ends = np.count_nonzero(phase[1:] != phase[:-1]) + np.count_nonzero(
        phase[:, 1:] != phase[:, :-1]
    )
    # rows and columns each cross the whole area
    return 4 * area / int(ends) if ends else float(np.mean(phase.shape))
