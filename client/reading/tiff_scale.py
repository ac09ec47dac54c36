"""The scale that an instrument or a program wrote into a TIFF file, if it can be right."""

from __future__ import annotations

from pathlib import Path

import tifffile

from client.findings import RefusedError
from client.reading.image_header import ImageHeader
from client.reading.pixel_shape import is_square
from client.reading.scale_records import INSTEAD, Record, read_records
from client.tiles import MAX_UM_PER_PX, MIN_UM_PER_PX

MAX_BAR = 0.25
"""Largest share of the image's height by which a data bar may be added to it."""


def read_tiff_scale(path: Path, header: ImageHeader) -> tuple[float, float]:
    """Read how many µm a pixel has, across and down, as stored.

    Parameters
    ----------
    path : Path
        Of a TIFF file.
    header : ImageHeader
        Its own, for the size that the image has now.

    Returns
    -------
    pair of float, µm per px

    Raises
    ------
    RefusedError
        If no record has the scale, one cannot be right, the image was resized since, or two
        records disagree.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            records = read_records(tiff)
    except (RefusedError, OSError):
        raise
    except Exception as error:
        # a parser that is given damaged bytes may raise anything
        raise RefusedError("its record of the scale cannot be read", INSTEAD) from error
    for record in records:
        _check_range(record)
        _check_size(record, header)
        for ours, first in zip(record.um_per_px, records[0].um_per_px, strict=True):
            if not is_square(ours, first):
                raise RefusedError(
                    f"its {records[0].source} record has {first:g} µm per px, and its "
                    f"{record.source} record {ours:g}",
                    INSTEAD,
                )
    return records[0].um_per_px


def _check_range(record: Record) -> None:
    for side in record.um_per_px:
        if not MIN_UM_PER_PX <= side <= MAX_UM_PER_PX:
            raise RefusedError(
                f"its {record.source} record has {side:g} µm per px, which cannot be right", INSTEAD
            )


def _check_size(record: Record, header: ImageHeader) -> None:
    """Refuse an image that was resized or cropped after its scale was written down."""
    if record.width is None or record.height is None:
        return
    bar = header.height - record.height
    fits = bar in (0, record.bar)
    if record.bar is None:
        fits = 0 <= bar <= MAX_BAR * record.height
    if header.width != record.width or not fits:
        raise RefusedError(
            f"its {record.source} record is of {record.width} x {record.height} px, and it has "
            f"{header.width} x {header.height} px: it was resized or cropped since",
            f"use the image as it was taken (crop_bottom cuts a data bar), or {INSTEAD}",
        )
