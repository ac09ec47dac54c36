"""Grey levels that tell voids, resin and fibres apart, from the histogram of flat grey values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from skimage.filters import threshold_otsu

NUM_BINS = 256
VOID_SIGMAS = 4.0
VOIDS_AT_MOST = 0.25
"""A dark class smaller than this share is voids, and what is brighter is the matrix."""

TWO_CLASSES = 0.72
"""Least share of the variance that lies between two classes; Otsu's of one Gaussian has 0.64."""

APART_SIGMAS = 3.0
"""Least distance of two classes' means; those of one Gaussian's halves are 1.6 apart."""

_SMOOTHING = 2.0
_ONE_SIGMA = np.exp(-0.5)


SAMPLES = 512
"""Pixels along the shorter side that a histogram or a quantile is taken from."""


def thinned(image: np.ndarray) -> np.ndarray:
    """Return every nth row and column, with about `SAMPLES` along the shorter side.

    Examples
    --------
    >>> thinned(np.zeros((1100, 2000))).shape, thinned(np.zeros((600, 600))).shape
    ((550, 1000), (600, 600))
    """
    step = max(1, min(image.shape) // SAMPLES)
    return image[::step, ::step]


@dataclass(frozen=True, kw_only=True)
class Levels:
    """Grey levels, all on the scale of the values that they were found in.

    Attributes
    ----------
    resin : float
        The most frequent grey of the resin, or of the matrix of any other material.
    sigma : float
        Standard deviation of the resin's grey.
    void : float
        What is darker is void or crack: `resin` minus four `sigma`.
    fibre : float
        What is brighter is fibre; infinite where the histogram shows no second phase.
    """

    resin: float
    sigma: float
    void: float
    fibre: float


def find_levels(values: np.ndarray) -> Levels:
    """Find the levels of voids, resin and fibres.

    Otsu's threshold of all values would fall between voids and the rest as soon as voids are
    large. It only says here on which side to look for the resin's mode; the mode and its width
    then bound the voids, and Otsu's threshold of what is not void bounds the fibres.

    Parameters
    ----------
    values : ndarray of any shape
        Grey values under even light.

    References
    ----------
    Otsu (1979), A threshold selection method from gray-level histograms, IEEE Trans. SMC 9.

    Examples
    --------
    >>> greys = np.random.default_rng(0).normal(np.repeat([0.1, 0.4, 0.7], [400, 4800, 4800]), 0.02)
    >>> levels = find_levels(greys)
    >>> [round(float(level), 1) for level in (levels.resin, levels.void, levels.fibre)]
    [0.4, 0.3, 0.5]
    >>> find_levels(np.full(9, 0.5)).fibre
    inf
    """
    counts, greys = _histogram(values)
    first = _otsu(counts, greys)
    dark = greys <= first
    is_matrix = ~dark if counts[dark].sum() < VOIDS_AT_MOST * counts.sum() else dark
    smooth = gaussian_filter1d(counts, _SMOOTHING)
    mode = int(np.argmax(np.where(is_matrix, smooth, -1)))
    sigma = _half_width(smooth, mode) * float(greys[1] - greys[0])
    void = float(greys[mode]) - VOID_SIGMAS * sigma
    solid = greys >= void
    fibre = _otsu(counts[solid], greys[solid])
    if fibre <= greys[mode] or not _are_two_classes(counts[solid], greys[solid], fibre, sigma):
        fibre = np.inf
    return Levels(resin=float(greys[mode]), sigma=sigma, void=void, fibre=fibre)


def _histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = float(values.min()), float(values.max())
    # equal values would have a bin without a width
    counts, edges = np.histogram(values, NUM_BINS, (low, max(high, low + 1e-3)))
    return counts.astype(np.float64), (edges[1:] + edges[:-1]) / 2


def _otsu(counts: np.ndarray, greys: np.ndarray) -> float:
    if np.count_nonzero(counts) < 2:
        return float(greys[-1])
    return float(threshold_otsu(hist=(counts, greys)))


def _half_width(smooth: np.ndarray, mode: int) -> float:
    # the narrower side: fibres' edges widen the one, seams around fibres the other
    fall = smooth[mode] * _ONE_SIGMA
    sides = (smooth[mode::-1], smooth[mode:])
    widths = [float(np.argmax(side < fall)) for side in sides if (side < fall).any()]
    # the smoothing of the histogram has widened the mode
    width = max(min(widths, default=1.0) - 0.5, 0.0)
    return float(np.sqrt(max(width**2 - _SMOOTHING**2, 0.25)))


def _are_two_classes(counts: np.ndarray, greys: np.ndarray, threshold: float, sigma: float) -> bool:
    share = counts / counts.sum()
    mean = np.sum(share * greys)
    variance = np.sum(share * (greys - mean) ** 2)
    dark = greys <= threshold
    below = share[dark].sum()
    if variance == 0 or below in (0, 1):
        return False
    # both classes' means follow from the whole mean and one of them
    difference = (mean - np.sum(share[dark] * greys[dark]) / below) / (1 - below)
    between = below * (1 - below) * difference**2 / variance
    return bool(between > TWO_CLASSES and difference > APART_SIGMAS * sigma)
