"""On which pixels a micrograph is described: at the federation's scale, or on square ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from client import tiles
from client.findings import RefusedError
from client.settings import UmPerPx
from common.federation import Imaging

LEAST_PX = 16
"""Shorter sides have no room for the neighbourhoods that descriptors are measured in."""


def described_size(
    height: int, width: int, um_per_px: UmPerPx | None, imaging: Imaging
) -> tuple[int, int]:
    """Return the size at which a micrograph is described, in px.

    With ``scale = "physical"`` that is the federation's scale. Otherwise the micrograph is
    described pixel by pixel, once pixels that are not square have been made so: on others a round
    void is an ellipse, and every direction and length is wrong.

    Raises
    ------
    LabDataError
        If it is too small to be described, or cannot be resampled to the federation's scale.

    Examples
    --------
    >>> described_size(480, 640, (0.25, 0.5), Imaging(scale="pixels"))
    (480, 320)
    """
    if imaging.scale == "physical":
        plan = tiles.plan(height, width, um_per_px, imaging)
        size = plan.height, plan.width
    else:
        size = tiles.squared(height, width, um_per_px)
    if min(height, width, *size) < LEAST_PX:
        raise RefusedError(
            f"has a side under {LEAST_PX} px, too short to be described",
            "take a larger field of view, or agree on no descriptors",
        )
    return size


def describe_micrograph(
    grey: np.ndarray, um_per_px: UmPerPx | None, imaging: Imaging, names: Sequence[str]
) -> np.ndarray:
    """Describe a micrograph at the size that it is described at.

    Parameters
    ----------
    grey : ndarray of shape (height, width), float32 in [0, 1]
    um_per_px : float, pair of float (across, down), or None
    imaging : Imaging
    names : sequence of str
        Of the descriptors.

    Returns
    -------
    ndarray of shape (n_descriptors,), float64
        NaN where the thing is not found.

    Raises
    ------
    LabDataError
        As `described_size`.
    """
    # scikit-image takes half a second to import, and few federations ask for descriptors
    from client.descriptors import describe

    height, width = described_size(grey.shape[0], grey.shape[1], um_per_px, imaging)
    scale = imaging.um_per_px if imaging.scale == "physical" else None
    return describe(tiles.resample(grey, height, width), names, scale)
