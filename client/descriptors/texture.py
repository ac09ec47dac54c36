"""Texture: how grey values go together, without asking what they show."""

from __future__ import annotations

import cv2
import numpy as np
from scipy import fft, stats
from skimage.feature import graycomatrix

from client.descriptors.levels import thinned

NUM_LEVELS = 32
ENTROPY_BINS = 256
CLIPPED_PERCENT = 0.5
_ANGLES = (0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
_LONGEST_LAG = 256

# variance without contrast, and share of it that is correlated at all
_NOTHING = 1e-9
_ONLY_NOISE = 0.02


def stretch(flat: np.ndarray) -> np.ndarray:
    """Stretch grey values to uint8, 0 to 255 from the 0.5th to the 99.5th percentile.

    Contrast and brightness, which each lab sets anew, thus do not count. Without contrast, all
    are 0.
    """
    low, high = np.percentile(thinned(flat), [CLIPPED_PERCENT, 100 - CLIPPED_PERCENT])
    if high - low < 1e-4:
        return np.zeros(flat.shape, dtype=np.uint8)
    factor = 255 / (high - low)
    return np.asarray(cv2.convertScaleAbs(np.maximum(flat - low, 0), alpha=factor))


def cooccurrence(stretched: np.ndarray) -> np.ndarray:
    """Return the grey-level co-occurrence matrices of neighbours in four directions.

    Parameters
    ----------
    stretched : ndarray of shape (height, width), uint8

    Returns
    -------
    ndarray of shape (32, 32, 1, 4), float64, each matrix symmetric and with the sum 1

    References
    ----------
    Haralick, Shanmugam, Dinstein (1973), Textural features for image classification, IEEE Trans.
    SMC 3.
    """
    coarse = stretched // (256 // NUM_LEVELS)
    return np.asarray(graycomatrix(coarse, [1], _ANGLES, NUM_LEVELS, symmetric=True, normed=True))


def entropy(stretched: np.ndarray) -> float:
    """Return Shannon's entropy of the grey values, in bit: 0 for one value, at most 8.

    References
    ----------
    Shannon (1948), A mathematical theory of communication, Bell Syst. Tech. J. 27.

    Examples
    --------
    >>> entropy(np.array([[0, 255], [255, 0]], dtype=np.uint8))
    1.0
    """
    counts = np.bincount(stretched.ravel(), minlength=ENTROPY_BINS)
    return float(stats.entropy(counts, base=2))


def correlation_length(flat: np.ndarray) -> float | None:
    """Return the distance at which the two-point correlation has fallen to 1/e.

    The covariance comes from the power spectrum, averaged over directions. Noise stands in its
    value at distance 0 alone, which is therefore taken from distances 1 and 2.

    Parameters
    ----------
    flat : ndarray of shape (height, width), float32

    Returns
    -------
    float, in px, or None without contrast
        A quarter of the shorter side, at most 256 px, where the correlation stays above; 1 px
        for noise.

    References
    ----------
    Torquato (2002), Random heterogeneous materials, chapter 2.

    Examples
    --------
    >>> noise = np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)
    >>> round(correlation_length(cv2.GaussianBlur(noise, (0, 0), 4.0)), 1)  # 2 sigma
    7.8
    """
    profile = _covariance(flat - flat.mean(dtype=np.float64).astype(np.float32))
    origin = (4 * profile[1] - profile[2]) / 3
    if profile[0] < _NOTHING:
        return None
    if origin < _ONLY_NOISE * profile[0]:
        return 1.0
    fallen = np.nonzero(profile[1:] < origin / np.e)[0]
    if not len(fallen):
        return float(len(profile) - 1)
    last = int(fallen[0])
    before = origin if last == 0 else profile[last]
    part = (before - origin / np.e) / (before - profile[last + 1])
    return float(last + part)


def _covariance(centred: np.ndarray) -> np.ndarray:
    longest = min(min(centred.shape) // 4, _LONGEST_LAG)
    spectrum = fft.rfft2(centred)
    power = spectrum.real**2 + spectrum.imag**2
    whole = fft.irfft2(power, s=centred.shape) / centred.size
    near = np.arange(-longest, longest + 1)
    window = whole[np.ix_(near, near)]
    distance = np.rint(np.hypot(near[:, None], near)).astype(np.intp).ravel()
    sums = np.bincount(distance, window.ravel())
    return np.asarray((sums / np.bincount(distance))[: longest + 1])
