"""Fibres: how many, how thick, how they lie to each other."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial import cKDTree

MIN_RADIUS_PX = 1.5

# of the mean radius: how far apart two peaks are, and how high one is at least
_PEAK_WINDOW = 0.7
_PEAK_HEIGHT = 0.5
_PEAK_SMOOTHING = 0.1
_WINDOW_DIAMETERS = 4.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Fibres:
    """The fibres of a micrograph.

    Attributes
    ----------
    centres : ndarray of shape (num_fibres, 2)
        x and y in px.
    diameter : float, in px
        Of the circle with a fibre's mean area.
    density : float
        Number per px².
    """

    centres: np.ndarray
    diameter: float
    density: float


def find_fibres(fibre: np.ndarray) -> Fibres | None:
    """Find fibres as the peaks of the distance to the nearest pixel that is not fibre.

    Fibres that touch stay apart. A disc's mean distance to its edge is a third of its radius,
    which gives the radius to look for.

    Parameters
    ----------
    fibre : ndarray of shape (height, width), uint8, 0 or 1

    Returns
    -------
    Fibres or None
        None without any.

    References
    ----------
    Danielsson (1980), Euclidean distance mapping, Comput. Graph. Image Process. 14.

    Examples
    --------
    >>> mask = np.zeros((60, 60), dtype=np.uint8)
    >>> for x, y in ((20, 20), (41, 20), (30, 40)):
    ...     _ = cv2.circle(mask, (x, y), 10, 1, -1)
    >>> fibres = find_fibres(mask)
    >>> sorted(fibres.centres.round().tolist()), round(fibres.diameter)
    ([[20.0, 20.0], [30.0, 40.0], [41.0, 20.0]], 20)
    """
    num_px = int(cv2.countNonZero(fibre))
    if num_px in (0, fibre.size):
        return None
    distance = cv2.distanceTransform(fibre, cv2.DIST_L2, cv2.DIST_MASK_5)
    radius = 3 * float(distance.sum(dtype=np.float64)) / num_px
    if radius < MIN_RADIUS_PX:
        return None
    smooth = cv2.GaussianBlur(distance, (0, 0), max(_PEAK_SMOOTHING * radius, 0.5))
    centres = _peaks(smooth, radius)
    if not len(centres):
        return None
    return _counted(fibre, centres, radius)


def spacing(fibres: Fibres, shape: tuple[int, int]) -> tuple[float, float] | None:
    """Measure the distance from each fibre's centre to the nearest other one.

    Fibres closer to the border than a diameter are only looked at as neighbours, for their own
    may lie beyond it; in a micrograph without others, they count.

    Returns
    -------
    ratio, variation : float, or None with fewer than three fibres
        Mean distance in fibre diameters, and its coefficient of variation.

    References
    ----------
    Clark, Evans (1954), Distance to nearest neighbor as a measure of spatial relationships in
    populations, Ecology 35.
    """
    if len(fibres.centres) < 3:
        return None
    distances, _ = cKDTree(fibres.centres).query(fibres.centres, k=2)
    nearest = np.asarray(distances)[:, 1]
    size = np.array([shape[1], shape[0]]) - 1
    border = np.minimum(fibres.centres, size - fibres.centres).min(axis=1)
    inner = nearest[border > fibres.diameter]
    chosen = inner if len(inner) >= 3 else nearest
    return float(chosen.mean() / fibres.diameter), float(chosen.std() / chosen.mean())


def fraction_variation(fibre: np.ndarray, diameter: float) -> float | None:
    """Return the coefficient of variation of the fibre fraction in windows of four diameters.

    Parameters
    ----------
    fibre : ndarray of shape (height, width), uint8, 0 or 1
    diameter : float, in px

    Returns
    -------
    float, or None where the micrograph is smaller than two windows

    References
    ----------
    Pyrz (1994), Quantitative description of the microstructure of composites, Compos. Sci.
    Technol. 50.
    """
    side = max(round(_WINDOW_DIAMETERS * diameter), 3)
    if min(fibre.shape) < 2 * side:
        return None
    local = cv2.boxFilter(fibre, cv2.CV_32F, (side, side))
    half = side // 2
    local = local[half : -half or None, half : -half or None]
    mean = float(local.mean(dtype=np.float64))
    return float(local.std(dtype=np.float64)) / mean if mean > 0 else None


def _peaks(smooth: np.ndarray, radius: float) -> np.ndarray:
    reach = max(round(_PEAK_WINDOW * radius), 1)
    window = cv2.getStructuringElement(cv2.MORPH_RECT, (2 * reach + 1, 2 * reach + 1))
    is_peak = (smooth == cv2.dilate(smooth, window)) & (smooth > _PEAK_HEIGHT * radius)
    # equal neighbours are one peak
    centres = cv2.connectedComponentsWithStats(is_peak.astype(np.uint8))[3][1:]
    return np.asarray(centres)


def _counted(fibre: np.ndarray, centres: np.ndarray, radius: float) -> Fibres:
    # a fibre that the border cuts has its peak on the border, wherever its centre lies: count
    # within a frame that no fibre from beyond reaches, if it is not too small
    inset = round(min(radius, min(fibre.shape) / 8)) + 1
    inner = fibre[inset:-inset, inset:-inset]
    size = np.array([inner.shape[1], inner.shape[0]])
    at = centres - inset + 0.5
    num_inside = int(np.count_nonzero(((at >= 0) & (at < size)).all(axis=1)))
    if not num_inside:
        inner, num_inside = fibre, len(centres)
    area = int(cv2.countNonZero(np.ascontiguousarray(inner))) / num_inside
    return Fibres(
        centres=centres,
        diameter=float(np.sqrt(4 / np.pi * area)),
        density=num_inside / inner.size,
    )
