"""Cracks: lines that are much darker than the resin."""

from __future__ import annotations

import cv2
import numpy as np
from skimage.morphology import skeletonize

from client.descriptors.phases import Phases
from client.descriptors.voids import regions

SCALES_PX = (0.7, 1.5)
"""Standard deviations of the Hessian: for cracks of about 2 to 5 px."""

# depth of a crack's middle below the resin: of the contrast to the fibres, and in sigmas;
# measured on drawn sections, whose seams and polishing marks stay above
_DEPTH = 0.6
_SIGMAS = 4.5
_NOISES = 6.0
_SHALLOW = 0.35
_RIDGE, _FAINT_RIDGE = 0.5, 0.2
_ELONGATION = 2.0
_SHORTEST_PX = 6.0
_BORDER_PX = 5


def crack_mask(
    flat: np.ndarray, phases: Phases, void: np.ndarray, noise_sigma: float
) -> np.ndarray:
    """Find cracks: pixels that are dark and on a dark ridge, connected to ones that surely are.

    Parameters
    ----------
    flat : ndarray of shape (height, width), float32
    phases : Phases
    void : ndarray of shape (height, width), uint8, 0 or 1
    noise_sigma : float
        Standard deviation of the noise of a pixel.

    Returns
    -------
    ndarray of shape (height, width), bool
        The cracks' centre lines, one pixel wide.

    References
    ----------
    Steger (1998), An unbiased detector of curvilinear structures, IEEE Trans. PAMI 20; Canny
    (1986), IEEE Trans. PAMI 8, for the hysteresis; Zhang, Suen (1984) for the centre line.
    """
    levels = phases.levels
    # what smoothing leaves of the noise is more at this scale than where the levels are from
    rest = noise_sigma / (2 * SCALES_PX[0] * np.pi**0.5)
    deep = max(_DEPTH * phases.contrast, _SIGMAS * levels.sigma, _NOISES * rest)
    smooth = cv2.GaussianBlur(flat, (0, 0), SCALES_PX[0])
    depth = levels.resin - smooth
    # a void's edge is dark too, and blurred beyond the void
    apart = cv2.dilate(void, np.ones((5, 5), np.uint8)) == 0
    if not np.any((depth > deep) & apart):
        return np.zeros(flat.shape, dtype=bool)
    ridge = np.maximum(*(_ridge(flat, scale) for scale in SCALES_PX))
    faint = (depth > _SHALLOW * deep) & (ridge > _FAINT_RIDGE * deep) & apart
    sure = faint & (depth > deep) & (ridge > _RIDGE * deep)
    return _lines(faint.astype(np.uint8), sure)


def length(lines: np.ndarray) -> float:
    """Return the length of lines that are one pixel wide.

    Steps along the grid count 1, diagonal ones √2, times 0.948 for lines of any direction.

    Returns
    -------
    float, in px

    References
    ----------
    Kulpa (1977), Area and perimeter measurement of blobs in discrete binary pictures, Comput.
    Graph. Image Process. 6.

    Examples
    --------
    >>> round(length(np.eye(11, dtype=bool)) / (0.948 * 10 * 2**0.5), 6)
    1.0
    """
    across = np.count_nonzero(lines[:, 1:] & lines[:, :-1])
    down = np.count_nonzero(lines[1:] & lines[:-1])
    falling = lines[1:, 1:] & lines[:-1, :-1] & ~(lines[1:, :-1] | lines[:-1, 1:])
    rising = lines[1:, :-1] & lines[:-1, 1:] & ~(lines[1:, 1:] | lines[:-1, :-1])
    diagonal = np.count_nonzero(falling) + np.count_nonzero(rising)
    return float(0.948 * (across + down + np.sqrt(2) * diagonal))


def count(lines: np.ndarray) -> int:
    """Return the number of lines, taking pieces up to four pixels apart for one.

    A line that the upper or left border cuts is left to the neighbouring micrograph.
    """
    joined = cv2.dilate(lines.astype(np.uint8), np.ones((5, 5), np.uint8))
    return int(regions(joined).is_counted.sum())


def _ridge(flat: np.ndarray, scale: float) -> np.ndarray:
    # larger eigenvalue of the Hessian, normalised by the scale: positive on dark lines
    smooth = cv2.GaussianBlur(flat, (0, 0), scale)
    xx, xy, yy = (
        cv2.Sobel(smooth, cv2.CV_32F, dx, dy, scale=0.25) for dx, dy in ((2, 0), (1, 1), (0, 2))
    )
    # not cv2.magnitude, whose last bits depend on where the memory begins
    larger = (xx + yy) / 2 + np.sqrt((xx - yy) ** 2 / 4 + xy**2)
    return np.asarray(scale**2 * larger)


def _lines(faint: np.ndarray, sure: np.ndarray) -> np.ndarray:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(faint, connectivity=8)
    keep = np.zeros(len(stats), dtype=bool)
    keep[labels[sure]] = True
    thin = skeletonize(keep[labels])
    lengths = np.bincount(labels[thin], minlength=len(stats))
    areas = stats[:, cv2.CC_STAT_AREA]
    keep &= (lengths >= _SHORTEST_PX) & (lengths**2 >= _ELONGATION * areas)
    keep &= ~_hug_the_border(stats, faint.shape)
    return np.asarray(thin & keep[labels])


def _hug_the_border(stats: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    # the rim of a void that the border cuts off is as thin as a crack
    left, top, width, height = stats[:, : cv2.CC_STAT_AREA].T
    across = (left + width <= _BORDER_PX) | (left >= shape[1] - _BORDER_PX)
    down = (top + height <= _BORDER_PX) | (top >= shape[0] - _BORDER_PX)
    return np.asarray(across | down)
