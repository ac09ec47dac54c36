"""Segmentation: which pixels are fibre, void, or resin."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from client.descriptors.levels import Levels, find_levels, thinned

SMOOTHING_PX = 1.5

# between the resin's grey and the fibres', from where on the Laplacian decides
_EDGE_FROM = 0.2


@dataclass(frozen=True, kw_only=True, eq=False)
class Phases:
    """The phases of a micrograph; masks are uint8 of shape (height, width), 0 or 1.

    Attributes
    ----------
    fibre : ndarray
    dark : ndarray
        Voids and cracks.
    levels : Levels
    contrast : float
        From the resin's grey to the fibres'; 0 without fibres.
    """

    fibre: np.ndarray
    dark: np.ndarray
    levels: Levels
    contrast: float


def segment(smooth: np.ndarray) -> Phases:
    """Tell fibres and what is dark from the resin.

    Fibres are what is brighter than Otsu's threshold of what is not dark. Polishing rounds their
    shoulders and leaves a dark seam, so that the threshold alone takes off a rim: between the
    resin's grey and the threshold, a pixel is fibre on the bright side of the edge, where the
    Laplacian is negative. Between the resin's grey and half way down, a pixel is dark on the
    dark side.

    Parameters
    ----------
    smooth : ndarray of shape (height, width), float32
        Flat grey values, smoothed by `SMOOTHING_PX`.

    References
    ----------
    Otsu (1979), IEEE Trans. SMC 9; Marr, Hildreth (1980), Theory of edge detection, Proc. R.
    Soc. B 207.

    Examples
    --------
    >>> grey = np.full((64, 64), 0.4, dtype=np.float32)
    >>> grey = cv2.circle(cv2.circle(grey, (20, 20), 12, 0.7, -1), (48, 48), 6, 0.1, -1)
    >>> phases = segment(cv2.GaussianBlur(grey, (0, 0), SMOOTHING_PX))
    >>> int(phases.fibre.sum()), int((grey > 0.6).sum()), round(phases.contrast, 1)
    (437, 441, 0.3)
    """
    few = thinned(smooth)
    levels = find_levels(few)
    curvature = cv2.Laplacian(smooth, cv2.CV_32F)
    dark = _dark(smooth, curvature, levels)
    bright = few[few > levels.fibre]
    if not len(bright):
        return Phases(fibre=np.zeros_like(dark), dark=dark, levels=levels, contrast=0.0)
    contrast = float(np.median(bright)) - levels.resin
    edge = smooth > levels.resin + _EDGE_FROM * contrast
    ragged = (smooth > levels.fibre) | (edge & (curvature < 0))
    fibre = np.asarray(cv2.medianBlur(ragged.astype(np.uint8), 5))
    return Phases(fibre=fibre, dark=dark, levels=levels, contrast=contrast)


def _dark(smooth: np.ndarray, curvature: np.ndarray, levels: Levels) -> np.ndarray:
    dark = smooth < levels.void
    if dark.any():
        # the lower quartile, because the blurred edges of small voids are many
        floor = float(np.quantile(smooth[dark], 0.25))
        dark &= (curvature > 0) | (smooth < (levels.resin + floor) / 2)
    return dark.astype(np.uint8)
