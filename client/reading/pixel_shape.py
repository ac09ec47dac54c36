"""The shape of an image's pixels, by the resolution that its own header states."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

from PIL import Image

Density: TypeAlias = tuple[float, float]
"""px per some length, across and down: as a header has it, often the resolution of a print."""

SQUARE_WITHIN = 0.01
"""Relative difference of two sides up to which a pixel counts as square: headers round."""

_X_RESOLUTION, _Y_RESOLUTION = 282, 283


def raster_density(image: Image.Image, exif: Image.Exif | None) -> Density | None:
    """Return the resolution that a PNG (pHYs), JPEG (JFIF, else EXIF) or BMP states.

    Parameters
    ----------
    image : Image
        Opened, not decoded.
    exif : Exif or None
        Where it may be read without decoding.

    Returns
    -------
    pair of float or None
        As stored, before the orientation is applied; None without two numbers above zero.

    Examples
    --------
    >>> image = Image.new("L", (8, 8))
    >>> image.info["aspect"] = (1, 2)
    >>> raster_density(image, None)
    (1.0, 2.0)
    """
    info = image.info
    for key in ("jfif_density", "aspect", "dpi"):
        # Pillow makes up the dpi of a JPEG from EXIF data, and 72 where it finds none
        if key == "dpi" and image.format == "JPEG":
            continue
        # a text chunk of a PNG file may have any of these names
        if isinstance(info.get(key), tuple) and len(info[key]) == 2:
            return _checked(*info[key])
    if exif is None:
        return None
    return _checked(exif.get(_X_RESOLUTION), exif.get(_Y_RESOLUTION))


def tiff_density(page: Any) -> Density | None:
    """Return the XResolution and YResolution of a page of tifffile, as stored; None without."""
    across, down = (page.tags.valueof(code) for code in (_X_RESOLUTION, _Y_RESOLUTION))
    try:
        return _checked(across[0] / across[1], down[0] / down[1])
    except (TypeError, IndexError, ZeroDivisionError):
        return None


def _checked(across: Any, down: Any) -> Density | None:
    # a header that states no resolution, or none that is a number, says nothing of the shape
    try:
        pair = float(across), float(down)
    except (TypeError, ValueError):
        return None
    return pair if all(0 < side < math.inf for side in pair) else None


def is_square(one: float, other: float) -> bool:
    """Tell whether two sides of a pixel, or two densities, are one up to rounding.

    Examples
    --------
    >>> is_square(3779, 3780), is_square(300, 150)
    (True, False)
    """
    return abs(one - other) <= SQUARE_WITHIN * max(one, other)
