"""What FEI, Zeiss, ImageJ and OME write into a TIFF file about the size of its pixels.

Only that, and the size of the image it holds for, are taken from these records. They also hold
names of people and samples, which are neither kept nor shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import tifffile

from client.findings import RefusedError
from client.reading.pixel_shape import tiff_density
from client.settings import FILE_NAME, METADATA

INSTEAD = f'write numbers or a column for um_per_px in place of "{METADATA}" in {FILE_NAME}'

_UM = {"pm": 1e-6, "nm": 1e-3, "um": 1.0, "micron": 1.0, "microns": 1.0, "mm": 1e3}
# no inch and no cm: these are what programs write for a print of an image without a scale


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one record says.

    Attributes
    ----------
    source : str
        Who wrote it.
    um_per_px : pair of float
        Across and down, as stored.
    width, height : int or None
        Of the image that the scale holds for, in px.
    bar : int or None
        Height in px of a data bar that is no part of `height`; None if that is not known.
    """

    source: str
    um_per_px: tuple[float, float]
    width: int | None = None
    height: int | None = None
    bar: int | None = 0


class _MissingError(Exception):
    """What a record lacks that has no scale, where another record may have it."""


def read_records(tiff: tifffile.TiffFile) -> list[Record]:
    """Return all records that have a scale, one at least.

    Raises
    ------
    RefusedError
        If there is none, naming what is missing, or one is no number.
    Exception
        Of any kind, if a record is damaged.
    """
    found: list[Record] = []
    missing: list[str] = []
    readers: tuple[Callable[[tifffile.TiffFile], Record | None], ...] = (
        _fei,
        _zeiss,
        _imagej,
        _ome,
    )
    for read in readers:
        try:
            record = read(tiff)
        except _MissingError as why:
            missing.append(str(why))
            continue
        if record is not None:
            found.append(record)
    if not found:
        missing.append("has no record of its scale by FEI or Thermo, Zeiss, ImageJ or OME")
        raise RefusedError(missing[0], INSTEAD)
    return found


def _fei(tiff: tifffile.TiffFile) -> Record | None:
    sections = tiff.fei_metadata
    if sections is None:
        return None
    scan, image = (_section(sections, name) for name in ("Scan", "Image"))
    sides = [scan.get(name) for name in ("PixelWidth", "PixelHeight")]
    if None in sides:
        raise _MissingError("its FEI record has no PixelWidth and PixelHeight under [Scan]")
    return Record(
        source="FEI",
        um_per_px=(_number(sides[0], "FEI") * 1e6, _number(sides[1], "FEI") * 1e6),
        width=_count(image.get("ResolutionX")),
        height=_count(image.get("ResolutionY")),
        bar=_count(_section(sections, "PrivateFei").get("DatabarHeight")),
    )


def _section(sections: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = sections.get(name)
    return section if isinstance(section, Mapping) else {}


def _zeiss(tiff: tifffile.TiffFile) -> Record | None:
    entries = tiff.sem_metadata
    if entries is None:
        return None
    entry = entries.get("ap_image_pixel_size", entries.get("ap_pixel_size"))
    if entry is None:
        raise _MissingError("its Zeiss record has no AP_IMAGE_PIXEL_SIZE")
    side = _number(entry[1], "Zeiss") * _um(entry[2] if len(entry) > 2 else None, "Zeiss")
    stored = re.fullmatch(r"(\d+) *\* *(\d+)", str(entries.get("dp_image_store", ("", ""))[1]))
    width, height = (int(stored[1]), int(stored[2])) if stored else (None, None)
    return Record(source="Zeiss", um_per_px=(side, side), width=width, height=height, bar=None)


def _imagej(tiff: tifffile.TiffFile) -> Record | None:
    entries = tiff.imagej_metadata
    if entries is None:
        return None
    density = tiff_density(tiff.pages.first)
    if density is None:
        raise _MissingError("its ImageJ record stands without XResolution and YResolution")
    across = _um(entries.get("unit"), "ImageJ")
    down = _um(entries.get("yunit", entries.get("unit")), "ImageJ")
    return Record(source="ImageJ", um_per_px=(across / density[0], down / density[1]))


def _ome(tiff: tifffile.TiffFile) -> Record | None:
    if tiff.ome_metadata is None:
        return None
    tree = ElementTree.fromstring(tiff.ome_metadata)
    found = {_ome_pixels(item) for item in tree.iter() if item.tag.rpartition("}")[2] == "Pixels"}
    if len(found) > 1:
        raise RefusedError("its OME record has several images with scales of their own", INSTEAD)
    if not found:
        raise _MissingError("its OME record describes no image")
    return found.pop()


def _ome_pixels(pixels: ElementTree.Element) -> Record:
    sides = []
    for axis in "XY":
        size = pixels.get(f"PhysicalSize{axis}")
        if size is None:
            raise _MissingError(f"its OME record has no PhysicalSize{axis}")
        unit = pixels.get(f"PhysicalSize{axis}Unit", "um")
        sides.append(_number(size, "OME") * _um(unit, "OME"))
    width, height = (int(pixels.get(f"Size{axis}", 0)) or None for axis in "XY")
    return Record(source="OME", um_per_px=(sides[0], sides[1]), width=width, height=height)


def _number(value: Any, source: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise RefusedError(
            f"the size of a pixel in its {source} record is no number", INSTEAD
        ) from None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _um(unit: Any, source: str) -> float:
    """Return how many µm the unit has; it may be written with either mu, or escaped by ImageJ."""
    text = str(unit).replace("\\u00B5", "u").replace("µ", "u").replace("\u03bc", "u").lower()
    if text not in _UM:
        raise _MissingError(f"its {source} record has no unit of length such as nm, um or mm")
    return _UM[text]
