"""From a micrograph to the tiles that the network sees: its scale, and tiles that cover it all."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import assert_never

import cv2
import numpy as np

from client.settings import UmPerPx
from common.errors import LabDataError
from common.federation import Imaging

MIN_UM_PER_PX, MAX_UM_PER_PX = 1e-5, 1e3
"""Below lies the tenth of an atom, above the pixel of a millimetre: no micrograph has these."""


@dataclass(frozen=True, kw_only=True)
class TilePlan:
    """How one micrograph is resampled and cut.

    Attributes
    ----------
    height, width : int
        Size after resampling, in px.
    tile_px : int
        Side of a tile, in px.
    rows, columns : tuple of int
        Where tiles begin, in px; every pixel lies in a tile.
    """

    height: int
    width: int
    tile_px: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]


def plan(height: int, width: int, um_per_px: UmPerPx | None, imaging: Imaging) -> TilePlan:
    """Decide the size to resample a micrograph to, and where its tiles begin.

    ``physical`` resamples each axis to the federation's scale and never gives that scale up;
    ``pixels`` makes pixels square by shrinking the finer axis, then shrinks by the smallest whole
    number with which `imaging.max_tiles` tiles cover the micrograph; ``fit`` resizes it to one
    tile, whatever its pixels are.

    Parameters
    ----------
    height, width : int
        Of the micrograph, in px.
    um_per_px : float, pair of float, or None
        Of the micrograph, in µm; a pair is across and down, for pixels that are not square.
    imaging : Imaging

    Returns
    -------
    TilePlan

    Raises
    ------
    LabDataError
        If the scale is needed and unknown, the micrograph is smaller than one tile, or more
        tiles than allowed are needed to cover it.

    Examples
    --------
    >>> imaging = Imaging(scale="physical", um_per_px=0.5, tile_px=224)
    >>> plan(960, 1280, 0.25, imaging)
    TilePlan(height=480, width=640, tile_px=224, rows=(0, 128, 256), columns=(0, 208, 416))
    >>> plan(480, 1280, (0.25, 0.5), imaging).height
    480
    """
    _check_scale(um_per_px)
    match imaging.scale:
        case "fit":
            height = width = imaging.tile_px
        case "pixels":
            height, width = _shrink_to_tiles(*squared(height, width, um_per_px), imaging)
        case "physical":
            height, width = _physical_size(height, width, um_per_px, imaging)
        case _:
            assert_never(imaging.scale)
    return TilePlan(
        height=height,
        width=width,
        tile_px=imaging.tile_px,
        rows=_covering(height, imaging.tile_px),
        columns=_covering(width, imaging.tile_px),
    )


def cut(image: np.ndarray, tile_plan: TilePlan) -> np.ndarray:
    """Resample a micrograph and cut it into tiles.

    Shrinking averages over the area of each new pixel, so that nothing aliases; enlarging
    interpolates with Lanczos' kernel, held within the range of the grey values.

    Parameters
    ----------
    image : ndarray of shape (height, width), float32 in [0, 1]
    tile_plan : TilePlan

    Returns
    -------
    ndarray of shape (n_tiles, tile_px, tile_px), float32 in [0, 1], row by row

    Examples
    --------
    >>> image = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    >>> tiles = cut(image, TilePlan(height=3, width=4, tile_px=3, rows=(0,), columns=(0, 1)))
    >>> tiles.shape, bool((tiles[1] == image[:, 1:4]).all())
    ((2, 3, 3), True)
    """
    resampled = resample(image, tile_plan.height, tile_plan.width)
    side = tile_plan.tile_px
    return np.stack(
        [
            resampled[row : row + side, column : column + side]
            for row in tile_plan.rows
            for column in tile_plan.columns
        ]
    )


def resample(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resample an image to a size, each axis by area when it shrinks, by Lanczos when it grows.

    Parameters
    ----------
    image : ndarray of shape (old_height, old_width), float32 in [0, 1]
    height, width : int, in px

    Returns
    -------
    ndarray of shape (height, width), float32 in [0, 1]
    """
    for size in ((height, image.shape[1]), (height, width)):
        if image.shape != size:
            shrinks = size[0] <= image.shape[0] and size[1] <= image.shape[1]
            method = cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4
            image = np.clip(cv2.resize(image, (size[1], size[0]), interpolation=method), 0, 1)
    return image


def squared(height: int, width: int, um_per_px: UmPerPx | None) -> tuple[int, int]:
    """Return the size of a micrograph once its pixels are square.

    The finer axis is shrunk to the scale of the coarser, so that nothing is made up.

    Examples
    --------
    >>> squared(480, 640, (0.25, 0.5)), squared(480, 640, 0.25)
    ((480, 320), (480, 640))
    """
    if not isinstance(um_per_px, tuple):
        return height, width
    across, down = um_per_px
    coarser = max(um_per_px)
    return round(height * down / coarser), round(width * across / coarser)


def _covering(length: int, tile_px: int) -> tuple[int, ...]:
    """Begin of each tile along one axis: the fewest that cover it, evenly spread."""
    count = ceil(length / tile_px)
    return tuple(round(start) for start in np.linspace(0, length - tile_px, count).tolist())


def _num_tiles(height: int, width: int, tile_px: int) -> int:
    return ceil(height / tile_px) * ceil(width / tile_px)


def _check_scale(um_per_px: UmPerPx | None) -> None:
    sides = um_per_px if isinstance(um_per_px, tuple) else (um_per_px or 1.0,)
    if not all(MIN_UM_PER_PX <= side <= MAX_UM_PER_PX for side in sides):
        raise LabDataError(
            f"{max(sides):g} µm per px is no microscope's scale; correct um_per_px in lab.toml"
        )


def _shrink_to_tiles(height: int, width: int, imaging: Imaging) -> tuple[int, int]:
    _at_least_one_tile(height, width, height, width, imaging)
    factor = 1
    while _num_tiles(height // factor, width // factor, imaging.tile_px) > imaging.max_tiles:
        factor += 1
    if min(height, width) // factor < imaging.tile_px:
        raise LabDataError(
            f"{width} x {height} px are too long and narrow: {imaging.max_tiles} tiles of "
            f"{imaging.tile_px} px cannot cover them; cut the micrograph into shorter ones"
        )
    return height // factor, width // factor


def _physical_size(
    height: int, width: int, um_per_px: UmPerPx | None, imaging: Imaging
) -> tuple[int, int]:
    if um_per_px is None or imaging.um_per_px is None:
        raise LabDataError(
            "the scale is unknown, and the federation resamples to "
            f"{imaging.um_per_px} µm per px; give um_per_px in lab.toml"
        )
    across, down = um_per_px if isinstance(um_per_px, tuple) else (um_per_px, um_per_px)
    size = _at_least_one_tile(
        round(height * (down / imaging.um_per_px)),
        round(width * (across / imaging.um_per_px)),
        height,
        width,
        imaging,
    )
    needed = _num_tiles(*size, imaging.tile_px)
    if needed > imaging.max_tiles:
        shown = f"{across:g}" if across == down else f"{across:g} x {down:g}"
        raise LabDataError(
            f"{width} x {height} px at {shown} µm per px need {needed} tiles, and the "
            f"federation allows {imaging.max_tiles}; crop the micrograph, or ask the coordinator "
            "for a larger max_tiles or um_per_px"
        )
    return size


def _at_least_one_tile(
    height: int, width: int, from_height: int, from_width: int, imaging: Imaging
) -> tuple[int, int]:
    if min(height, width) < imaging.tile_px:
        raise LabDataError(
            f"{from_width} x {from_height} px are {width} x {height} px at the federation's "
            f"scale, less than one tile of {imaging.tile_px} px; take a larger field of view"
        )
    return height, width
