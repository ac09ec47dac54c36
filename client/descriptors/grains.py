"""Grains: the mean distance between boundaries along straight lines."""

from __future__ import annotations

import cv2
import numpy as np
from skimage.filters import threshold_otsu

SMOOTHING_PX = 1.0
WIDEST_LINE_PX = 9
"""A dark line up to this width is one boundary; wider, it is a grain of its own."""

# of Otsu's threshold: boundaries between grains of like grey are faint
_FAINTEST = 0.3
_SMALLEST_PX2 = 16
_NO_CONTRAST = 1e-3


def mean_intercept(flat: np.ndarray) -> float | None:
    """Return the mean lineal intercept between grain boundaries, over all rows and columns.

    A boundary is a dark line, as etching leaves it, or a step of the grey value. What encloses a
    grain may be wide or ragged: each of its pixels goes to the nearest grain, and intercepts end
    where the grain changes.

    Parameters
    ----------
    flat : ndarray of shape (height, width), float32
        As `client.descriptors.flat_field.flatten` makes it.

    Returns
    -------
    float, in px, or None without contrast
        The mean side where no boundary is found.

    References
    ----------
    ASTM E112, lineal intercept procedure; Heyn (1903).

    Examples
    --------
    >>> grey = np.full((120, 120), 0.6, dtype=np.float32)
    >>> grey[10::20], grey[:, 10::20] = 0.2, 0.2  # square grains of 20 px
    >>> round(mean_intercept(grey), 1)
    19.5
    """
    smooth = cv2.GaussianBlur(flat, (0, 0), SMOOTHING_PX)
    strength = _boundary_strength(smooth)
    if float(strength.max()) < _NO_CONTRAST:
        return None
    boundary = np.asarray(strength > _FAINTEST * threshold_otsu(strength), dtype=np.uint8)
    grains = _nearest_grain(cv2.medianBlur(boundary, 3))
    ends = np.count_nonzero(grains[1:] != grains[:-1]) + np.count_nonzero(
        grains[:, 1:] != grains[:, :-1]
    )
    # rows and columns each cross the whole area
    return 2 * grains.size / int(ends) if ends else float(np.mean(grains.shape))


def _boundary_strength(smooth: np.ndarray) -> np.ndarray:
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (WIDEST_LINE_PX, WIDEST_LINE_PX))
    square = np.ones((3, 3), np.uint8)
    # lines are closed first, for their two edges would be two boundaries
    closed = cv2.morphologyEx(smooth, cv2.MORPH_CLOSE, disc)
    closed = cv2.morphologyEx(closed, cv2.MORPH_OPEN, square)
    steps = cv2.morphologyEx(closed, cv2.MORPH_GRADIENT, square)
    return np.asarray(np.maximum(closed - smooth, steps))


def _nearest_grain(boundary: np.ndarray) -> np.ndarray:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(1 - boundary, connectivity=4)
    is_grain = stats[:, cv2.CC_STAT_AREA] >= _SMALLEST_PX2
    is_grain[0] = False
    rest = np.asarray(~is_grain[labels], dtype=np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(
        rest, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_CCOMP
    )
    return np.asarray(nearest)
