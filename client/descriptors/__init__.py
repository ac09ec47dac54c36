"""Classical descriptors of a micrograph, measured at the lab.

One file for each kind of thing measured; `common.descriptors` says what each name means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from client.descriptors.measures import MEASURES
from client.descriptors.picture import Picture
from common.descriptors import DESCRIPTORS
from common.errors import ConfigurationError

__all__ = ["describe"]


def describe(grey: np.ndarray, names: Sequence[str], um_per_px: float | None) -> np.ndarray:
    """Measure descriptors of a micrograph.

    A value depends on the micrograph and the scale alone, never on which others are asked for;
    what several need is computed once, and what none needs is not.

    Parameters
    ----------
    grey : ndarray of shape (height, width), float32 in [0, 1]
        At least 16 px each way.
    names : sequence of str
        Keys of `common.descriptors.DESCRIPTORS`.
    um_per_px : float or None
        None for an unknown scale: lengths are then in pixels, whatever their names end in.

    Returns
    -------
    ndarray of shape (len(names),), float64, in the units of the table
        NaN where a thing is not found; `client.pooling` fills in what stands for its absence.

    Raises
    ------
    ConfigurationError
        Names each unknown descriptor.

    Examples
    --------
    >>> grey = np.full((64, 64), 0.4, dtype=np.float32)
    >>> grey[20:40, 20:40] = 0.05
    >>> describe(grey, ["void_area_fraction", "void_largest_diameter_um"], 0.5).round(2)
    array([ 0.09, 11.06])
    """
    unknown = [name for name in names if name not in DESCRIPTORS]
    if unknown:
        found = ", ".join(map(repr, unknown))
        raise ConfigurationError(f"unknown descriptor {found}; known are {', '.join(DESCRIPTORS)}")
    picture = Picture(np.ascontiguousarray(grey, dtype=np.float32))
    return np.array([_value(picture, name, um_per_px) for name in names], dtype=np.float64)


def _value(picture: Picture, name: str, um_per_px: float | None) -> float:
    value = MEASURES[name](picture)
    if value is None or not math.isfinite(value):
        return math.nan
    return DESCRIPTORS[name].from_pixels(value, um_per_px)
