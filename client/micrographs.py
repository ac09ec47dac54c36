"""Micrographs: from a file to grey values in [0, 1], with nothing clipped and nothing guessed."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from client.findings import RefusedError
from client.reading.data_bar import find_data_bar
from client.reading.grey_values import to_grey
from client.reading.image_header import ImageHeader, read_header
from client.reading.image_remarks import Remark, remarks_on, remarks_on_file
from client.reading.png_chunks import has_whole_chunks
from client.reading.tiff_files import decode_tiff
from client.settings import Data

# what OpenCV prints of a damaged file names no file; the exception raised here is reported
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_GREY_MODES = ("1", "L", "LA", "I;16", "I;16B", "I")
_EQUAL_WITHIN = 2
"""Levels of 255 by which colours may differ and still be grey: JPEG rounds."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A micrograph with what is remarkable about it.

    Attributes
    ----------
    header : ImageHeader
    grey : ndarray of shape (height, width), float32 in [0, 1]
        Upright, without the rows that `crop_bottom` cuts off.
    remarks : tuple of Remark
    bar_begins : int or None
        Row of the upright, uncut image from which on it is an instrument's data bar.
    """

    header: ImageHeader
    grey: np.ndarray
    remarks: tuple[Remark, ...]
    bar_begins: int | None


@dataclass(frozen=True, kw_only=True)
class _Pixels:
    """Decoded pixels in one channel: the integers of the file, or floats.

    Attributes
    ----------
    values : ndarray of shape (height, width)
        Black is low, unless `white_is_low`.
    bits : int
    white_is_low : bool
    colours : ndarray of shape (height, width), bool, or None
        Which pixels are not grey; None where none is, or none was looked for.
    """

    values: np.ndarray
    bits: int
    white_is_low: bool = False
    colours: np.ndarray | None = None

    def map(self, change: Callable[[np.ndarray], np.ndarray]) -> _Pixels:
        """Return what a change of the shape makes of the pixels."""
        colours = None if self.colours is None else change(self.colours)
        return replace(self, values=change(self.values), colours=colours)


def read_micrograph(path: Path, data: Data) -> np.ndarray:
    """Read a micrograph.

    Parameters
    ----------
    path : Path
    data : Data
        Of ``lab.toml``: `bit_depth`, `intensity_range`, `page` and `crop_bottom` matter here.

    Returns
    -------
    ndarray of shape (height, width), float32 in [0, 1]
        Upright, without the rows that `crop_bottom` cuts off.

    Raises
    ------
    LabDataError
        If the file cannot be used; does not name the file.
    """
    _, pixels = _read(path, data, look_for_colour=False)
    return _grey(_cropped(pixels, data), data)


def inspect_micrograph(path: Path, data: Data) -> Inspection:
    """Read a micrograph, and note what is allowed but remarkable about it.

    Raises
    ------
    LabDataError
        As :func:`read_micrograph`.
    """
    header, whole = _read(path, data, look_for_colour=True)
    pixels = _cropped(whole, data)
    grey = _grey(pixels, data)
    is_colour = pixels.colours is not None and bool(pixels.colours.any())
    highest = int(pixels.values.max()) if pixels.bits == 16 and data.bit_depth is None else None
    remarks = [*remarks_on_file(header.orientation, is_colour, highest), *remarks_on(grey)]
    return Inspection(
        header=header,
        grey=grey,
        remarks=tuple(remarks),
        bar_begins=find_data_bar(whole.values),
    )


def _read(path: Path, data: Data, *, look_for_colour: bool) -> tuple[ImageHeader, _Pixels]:
    """Decode a file, and turn its pixels upright."""
    header = read_header(path, data)
    try:
        if header.format == "TIFF":
            pixels = _decode_tiff(path, header)
        else:
            pixels = _decode(path, header, look_for_colour=look_for_colour)
    except RefusedError:
        raise
    except Exception as error:
        # a decoder that is given damaged bytes may raise anything
        raise RefusedError(
            "is truncated or damaged: its pixels cannot be decoded",
            "copy or export the image again",
        ) from error
    return header, pixels.map(partial(_upright, orientation=header.orientation))


def _grey(pixels: _Pixels, data: Data) -> np.ndarray:
    return to_grey(pixels.values, data, bits=pixels.bits, white_is_low=pixels.white_is_low)


def _cropped(pixels: _Pixels, data: Data) -> _Pixels:
    """Cut off the bottom before any look at the grey values: a data bar is not of the material."""
    kept = data.rows_kept(len(pixels.values))
    return pixels.map(lambda values: values[:kept])


def _decode(path: Path, header: ImageHeader, *, look_for_colour: bool) -> _Pixels:
    content = path.read_bytes()
    if header.format == "PNG" and not has_whole_chunks(content):
        raise RefusedError("is a truncated or damaged PNG file", "copy or export the image again")
    colours = None
    with Image.open(io.BytesIO(content), formats=[header.format]) as image:
        _check_opaque(image)
        if look_for_colour and image.mode not in _GREY_MODES:
            colours = _find_colours(np.asarray(image.convert("RGB")))
    if header.format == "PNG":
        values = _decode_with_opencv(content)
    else:
        values = _decode_with_pillow(content, header)
    if values.shape != (header.height, header.width):
        raise ValueError("the pixels do not fill the image")
    return _Pixels(values=values, bits=8 * values.itemsize, colours=colours)


def _decode_with_opencv(content: bytes) -> np.ndarray:
    values = cv2.imdecode(
        np.frombuffer(content, np.uint8),
        cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION,
    )
    if values is None:
        raise ValueError("OpenCV cannot decode the image")
    return values


def _decode_with_pillow(content: bytes, header: ImageHeader) -> np.ndarray:
    """Decode JPEG and BMP: OpenCV has been seen to fill up truncated JPEGs with grey."""
    with Image.open(io.BytesIO(content), formats=[header.format]) as image:
        # a JPEG has brightness in a channel of its own, which is all that is decoded then
        image.draft("L", None)
        return np.asarray(image if image.mode == "L" else image.convert("L"))


def _check_opaque(image: Image.Image) -> None:
    if not image.has_transparency_data:
        return
    if image.mode.startswith("I") or np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        raise RefusedError("has transparent pixels", "export it without an alpha channel")


def _decode_tiff(path: Path, header: ImageHeader) -> _Pixels:
    decoded = decode_tiff(path, header.page)
    values, alpha = decoded.values, decoded.alpha
    if values.shape[:2] != (header.height, header.width):
        raise ValueError("the pixels do not fill the page")
    if alpha is not None and (alpha.dtype.kind != "u" or alpha.min() < 2**decoded.bits - 1):
        raise RefusedError("has transparent pixels", "export it without an alpha channel")
    colours = _find_colours(values) if values.ndim == 3 else None
    if colours is not None:
        values = _luma(values)
    elif values.ndim == 3:
        values = values[..., 1]
    return _Pixels(
        values=values, bits=decoded.bits, white_is_low=decoded.white_is_low, colours=colours
    )


def _find_colours(rgb: np.ndarray) -> np.ndarray | None:
    """Return which pixels are not grey, or None where all are."""
    within = _EQUAL_WITHIN * (257 if rgb.dtype == np.uint16 else 1)
    green = rgb[..., 1].astype(np.float32)
    differs = [np.abs(rgb[..., channel] - green) > within for channel in (0, 2)]
    colours = differs[0] | differs[1]
    return colours if colours.any() else None


def _luma(rgb: np.ndarray) -> np.ndarray:
    grey = rgb.astype(np.float32) @ _LUMA
    return np.rint(grey).astype(rgb.dtype) if rgb.dtype.kind == "u" else grey


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the rotation and mirroring that EXIF numbers from 1 to 8."""
    if orientation >= 5:
        values = values.T
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return np.ascontiguousarray(values)
