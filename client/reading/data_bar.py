"""The strip below a scanning electron micrograph in which the instrument writes its settings.

A network would learn the instrument from it, and take its letters for structure. FEI, Zeiss,
JEOL and Hitachi all draw it over the full width, in two tones, and that is what is looked for.
"""

from __future__ import annotations

import math

import numpy as np

MIN_ROWS, MAX_SHARE = 10, 0.25
"""A strip that is lower has no room for letters; one that is higher is a part of the picture."""
MIN_WIDTH = 128

_SAME, _CONTRAST = 0.03, 0.5
"""Of the range of grey values: spread of the strip's ground, and what letters differ by from it."""
MAX_MIXED = 0.12
"""Share of greys between ground and letters: the soft edges of letters, more after a resize."""
_NUM_ABOVE = 4
_NUM_PARTS = 8
_MIN_STROKES = 8


def find_data_bar(values: np.ndarray) -> int | None:
    """Find an instrument's data bar at the bottom of an image.

    It is a full-width strip of constant black or white ground with thin, sharp strokes on it,
    blank along its upper edge, and set off from the picture by a step over the full width.

    Parameters
    ----------
    values : ndarray of shape (height, width)
        Grey values of any type and range; upright.

    Returns
    -------
    int or None
        Row at which it begins; None if there is none.

    Examples
    --------
    >>> picture = np.random.default_rng(0).integers(60, 190, (256, 320), dtype=np.uint8)
    >>> picture[232:] = 0
    >>> find_data_bar(picture) is None
    True
    >>> picture[238:248, 20:200:6] = 255
    >>> find_data_bar(picture)
    232
    """
    height, width = values.shape
    reach = int(height * MAX_SHARE)
    if reach < MIN_ROWS or width < MIN_WIDTH:
        return None
    low, high = float(values.min()), float(values.max())
    if not low < high < math.inf:
        return None
    tail = (values[height - reach - _NUM_ABOVE :].astype(np.float32) - low) / (high - low)
    ground = float(np.median(tail[-MIN_ROWS:]))
    if 0.1 < ground < 0.9:
        return None
    is_ground = np.abs(tail - ground) <= _SAME
    is_ink = np.abs(tail - ground) >= _CONTRAST
    begin = _lowest_strip(is_ground, is_ink)
    if not _NUM_ABOVE <= begin <= len(tail) - MIN_ROWS:
        return None
    if not _is_set_off(is_ground, begin) or not _has_text(is_ground[begin:], is_ink[begin:]):
        return None
    return int(height - len(tail) + _with_frame(tail, begin))


def _lowest_strip(is_ground: np.ndarray, is_ink: np.ndarray) -> int:
    """Row from which on all rows are ground for the most part, or a line of a frame."""
    belongs = (is_ground.mean(axis=1) >= 0.4) | (is_ink.mean(axis=1) >= 0.9)
    others = np.flatnonzero(~belongs)
    return int(others[-1]) + 1 if len(others) else 0


def _is_set_off(is_ground: np.ndarray, begin: int) -> bool:
    """Whether the strip begins blank, below rows that are no ground in any part of the width."""
    above = is_ground[begin - _NUM_ABOVE : begin]
    parts = [part.mean() for part in np.array_split(above, _NUM_PARTS, axis=1)]
    below = is_ground[begin : begin + max(3, (len(is_ground) - begin) // 4)].mean(axis=1)
    return bool(np.mean(parts) <= 0.3 and max(parts) <= 0.75 and below.max() >= 0.95)


def _has_text(is_ground: np.ndarray, is_ink: np.ndarray) -> bool:
    """Whether a strip has two tones, and many thin strokes with sharp edges side by side."""
    ink = float(is_ink.mean())
    mixed = 1 - ink - float(is_ground.mean())
    if not 0.002 <= ink <= 0.4 or mixed > MAX_MIXED:
        return False
    edges = np.diff(is_ink.astype(np.int8), axis=1, prepend=0, append=0)
    starts, ends = np.nonzero(edges == 1), np.nonzero(edges == -1)
    is_thin = ends[1] - starts[1] <= max(4, is_ink.shape[1] // 50)
    # ground within three pixels before the stroke: letters are drawn, not photographed
    before = [is_ground[starts[0], np.maximum(starts[1] - px, 0)] for px in (1, 2, 3)]
    is_sharp = np.any(before, axis=0)
    strokes = np.bincount(starts[0][is_thin & is_sharp], minlength=len(is_ink))
    return int(strokes.max()) >= _MIN_STROKES and float(is_sharp.mean()) >= 0.4


def _with_frame(tail: np.ndarray, begin: int) -> int:
    """Add the rows of one grey above the strip: its frame, or the seam of a resized image."""
    while begin > 0 and float(np.ptp(tail[begin - 1])) <= 2 * _SAME:
        begin -= 1
    return begin
