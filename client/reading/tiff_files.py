"""TIFF files: the header of the page to use, and its pixels as grey values."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import tifffile
from PIL import Image

from client.findings import RefusedError
from client.reading.pixel_shape import Density, tiff_density

# a damaged file is reported by the exception that is raised here
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

MAX_PAGES = 10_000

_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _SEPARATED = 0, 1, 2, 3, 5
_READ = {_MINISWHITE, _MINISBLACK, _RGB, _PALETTE}


@dataclass(frozen=True, kw_only=True)
class TiffHeader:
    """What the header says of the page to use; sizes in px, as stored."""

    height: int
    width: int
    bits: int
    orientation: int
    page: int
    density: Density | None


@dataclass(frozen=True, kw_only=True)
class TiffPixels:
    """The decoded page, as stored: not yet turned upright.

    Attributes
    ----------
    values : ndarray of shape (height, width) or (height, width, 3)
        Black is low, unless `white_is_low`.
    alpha : ndarray of shape (height, width) or None
    bits : int
        Per channel.
    white_is_low : bool
        To be turned round by whoever knows the depth or the range: 12 bits may lie in 16.
    """

    values: np.ndarray
    alpha: np.ndarray | None
    bits: int
    white_is_low: bool = False


def read_tiff_header(file: IO[bytes], declared_page: int | None) -> TiffHeader:
    """Read the header of the declared page, or of the only one.

    Reduced copies of a page, which microscopes add as a preview, do not count as pages.

    Raises
    ------
    RefusedError
        If there are several pages and none is declared, or its colours are not read here.
    """
    with tifffile.TiffFile(file) as tiff:
        pages = [page for page in _each_page(tiff) if not getattr(page, "is_reduced", False)]
        page: Any = pages[_choose(len(pages), declared_page)]
        _check_page(page)
        tag = page.tags.get("Orientation")
        return TiffHeader(
            height=int(page.imagelength),
            width=int(page.imagewidth),
            bits=int(page.bitspersample),
            orientation=int(tag.value) if tag is not None and tag.value in range(1, 9) else 1,
            page=page.index,
            density=tiff_density(page),
        )


def _each_page(tiff: tifffile.TiffFile) -> Iterator[Any]:
    """Go through the pages; tifffile follows a damaged chain that returns to its start for ever."""
    seen: set[int] = set()
    for page in tiff.pages:
        if page.offset in seen or len(seen) >= MAX_PAGES:
            raise RefusedError(
                f"is damaged, or has more than {MAX_PAGES} pages", "export the image again"
            )
        seen.add(page.offset)
        yield page


def _choose(num_pages: int, declared: int | None) -> int:
    if num_pages == 0:
        raise RefusedError("is truncated or damaged: it has no page", "export the image again")
    if declared is None:
        if num_pages > 1:
            raise RefusedError(
                f"has {num_pages} pages",
                "write page = 0 (or another) under [data] in lab.toml, or export one page",
            )
        return 0
    if declared >= num_pages:
        raise RefusedError(
            f"has {num_pages} page(s), and lab.toml declares page = {declared}",
            "pages are counted from 0; correct page in lab.toml",
        )
    return declared


def _check_page(page: Any) -> None:
    if page.photometric == _SEPARATED:
        raise RefusedError("has CMYK colours, meant for printing", "export it in grey")
    if page.imagedepth > 1:
        raise RefusedError(f"is a volume of {page.imagedepth} layers", "export one layer")
    channels = 3 if page.photometric == _RGB else 1
    if page.samplesperpixel - channels not in (0, 1) and page.photometric in _READ:
        raise RefusedError(f"has {page.samplesperpixel} channels", "export one channel, in grey")


def decode_tiff(path: Path, index: int) -> TiffPixels:
    """Decode one page.

    Raises
    ------
    RefusedError
        If its compression or colours are not read here.
    Exception
        Of any kind, if the file is damaged.
    """
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[index]
        try:
            tifffile.TIFF.DECOMPRESSORS[page.compression]
        except KeyError:
            return _decode_with_pillow(path, page)
        if page.photometric not in _READ:
            raise RefusedError(f"has {_name(page.photometric)} colours", "export it in grey")
        values = page.asarray()
        values = np.moveaxis(values, 0, -1) if page.axes == "SYX" else values
        return _interpret(values, page)


def _interpret(values: np.ndarray, page: Any) -> TiffPixels:
    bits: int = page.bitspersample
    alpha = None
    if values.ndim == 3:
        colours = 3 if page.photometric == _RGB else 1
        alpha = values[..., colours] if values.shape[-1] > colours else None
        values = values[..., :colours] if colours == 3 else values[..., 0]
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if page.photometric == _PALETTE:
        # the entries have 16 bits, and programs write a level v as 256 v or 257 v
        palette = (np.moveaxis(page.colormap, 0, -1) >> 8).astype(np.uint8)
        return TiffPixels(values=palette[values], alpha=alpha, bits=8)
    white_is_low = page.photometric == _MINISWHITE
    return TiffPixels(values=values, alpha=alpha, bits=bits, white_is_low=white_is_low)


def _decode_with_pillow(path: Path, page: Any) -> TiffPixels:
    """Decode LZW, JPEG and fax compression, for which tifffile alone has no decoder."""
    refused = RefusedError(
        f"is compressed with {_name(page.compression)}, which is not read here for such pixels",
        "save it without compression, or as PNG",
    )
    # Pillow turns a TIFF upright by itself, and does not invert 16 bits
    if page.tags.get("Orientation") is not None and page.tags["Orientation"].value != 1:
        raise refused
    with Image.open(path, formats=["TIFF"]) as image:
        image.seek(page.index)
        plain = image.mode in ("1", "L", "RGB") and page.bitspersample <= 8
        if not plain and not (image.mode == "I;16" and page.photometric == _MINISBLACK):
            raise refused
        values = np.asarray(image.convert("L") if image.mode == "1" else image)
    return TiffPixels(values=values, alpha=None, bits=16 if values.dtype == np.uint16 else 8)


def _name(value: Any) -> str:
    return str(getattr(value, "name", value))
