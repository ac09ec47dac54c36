"""What a person should look at in a micrograph that can be read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BLANK = 0.5 / 255
"""Standard deviation of the grey values under which an image shows nothing."""
MAX_WHITE, MAX_BLACK = 0.1, 0.95
"""Shares of fully white and black pixels; a dark background is common, a white one is not."""


@dataclass(frozen=True, kw_only=True)
class Remark:
    """Something that a person should look at in an image that was read: what, and what to do."""

    found: str
    action: str


def remarks_on_file(orientation: int, is_colour: bool, highest: int | None) -> list[Remark]:
    """Return remarks on how an image is stored.

    Parameters
    ----------
    orientation : int
        As EXIF counts; 1 is upright.
    is_colour : bool
        Whether the colours differ.
    highest : int or None
        The highest value of a 16-bit image whose depth is not declared.
    """
    remarks = []
    if orientation != 1:
        remarks.append(
            Remark(
                found=f"is turned by its EXIF orientation {orientation}",
                action="check that all micrographs are taken in one direction",
            )
        )
    if is_colour:
        remarks.append(
            Remark(
                found="is a colour image; its brightness is used",
                action="export it in grey, if colours were added to it",
            )
        )
    if highest is not None and 0 < highest < 4096:
        remarks.append(
            Remark(
                found=f"has 16 bits, and its highest grey value is {highest}",
                action="write bit_depth = 12 (or what the camera has) under [data] in lab.toml",
            )
        )
    return remarks


def remarks_on(grey: np.ndarray) -> list[Remark]:
    """Return remarks on the grey values.

    Parameters
    ----------
    grey : ndarray of shape (height, width), float32 in [0, 1]

    Examples
    --------
    >>> [remark.found for remark in remarks_on(np.zeros((8, 8), dtype=np.float32))]
    ['is blank: all pixels have one grey']
    """
    if float(grey.std()) < BLANK:
        return [Remark(found="is blank: all pixels have one grey", action="look at the image")]
    white, black = float((grey == 1).mean()), float((grey == 0).mean())
    if white > MAX_WHITE or black > MAX_BLACK:
        share, what = (white, "white") if white > MAX_WHITE else (black, "black")
        return [
            Remark(
                found=f"is saturated: {share:.0%} of its pixels are fully {what}",
                action="take it again with another exposure, if it is no drawing",
            )
        ]
    return []
