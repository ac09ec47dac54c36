"""What is done with a micrograph before the network: decode, check, describe, resample, cut.

These are the functions that run in worker processes (``client/workers.py``): what they take and
return travels through a pipe, and what they load may crash without taking the lab along. So this
module and what it imports stay clear of torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client import tiles
from client.findings import RefusedError
from client.micrographs import read_micrograph
from client.reading.checksums import sha256_of
from client.settings import Data, UmPerPx
from common.federation import Imaging

LEAST_DESCRIBED_PX = 16


@dataclass(frozen=True, kw_only=True)
class PrepareTask:
    """A micrograph to prepare.

    Attributes
    ----------
    path : Path
    sha256 : str
        Of the file's bytes as they were when the data set was read.
    data : Data
        Of ``lab.toml``.
    um_per_px : float, pair of float (across, down), or None
    imaging : Imaging
    with_tiles : bool
        Whether tiles are wanted.
    descriptors : tuple of str
        Names of the descriptors that are wanted.
    """

    path: Path
    sha256: str
    data: Data
    um_per_px: UmPerPx | None
    imaging: Imaging
    with_tiles: bool
    descriptors: tuple[str, ...]

    def run(self) -> Prepared:
        """Prepare the micrograph.

        Raises
        ------
        LabDataError
            If it cannot be used; does not name the file.
        """
        grey = read_micrograph(self.path, self.data)
        plan = tiles.plan(grey.shape[0], grey.shape[1], self.um_per_px, self.imaging)
        numbers = described(grey, plan, self)
        none = np.empty((0, plan.tile_px, plan.tile_px), dtype=np.float32)
        cut = tiles.cut(grey, plan) if self.with_tiles else none
        # what is kept under this digest must never come from other bytes
        if sha256_of(self.path) != self.sha256:
            raise RefusedError("was changed while it was read", "run this again")
        return Prepared(tiles=cut, descriptors=numbers)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A micrograph as the network and the head see it.

    Attributes
    ----------
    tiles : ndarray of shape (n_tiles, tile_px, tile_px), float32 in [0, 1]
    descriptors : ndarray of shape (n_descriptors,), float64
    """

    tiles: np.ndarray
    descriptors: np.ndarray


def described(grey: np.ndarray, plan: tiles.TilePlan, task: PrepareTask) -> np.ndarray:
    """Describe a micrograph at the federation's scale, or, without one, pixel by pixel.

    Returns
    -------
    ndarray of shape (n_descriptors,), float64; empty where none is wanted

    Raises
    ------
    RefusedError
        If it is too small to be described.
    """
    if not task.descriptors:
        return np.empty(0)
    # scikit-image takes half a second to import, and few federations ask for descriptors
    from client.descriptors import describe

    if min(grey.shape) < LEAST_DESCRIBED_PX:
        raise RefusedError(
            f"has a side under {LEAST_DESCRIBED_PX} px, too short to be described",
            "take a larger field of view, or agree on no descriptors",
        )
    if task.imaging.scale != "physical":
        return describe(grey, task.descriptors, None)
    resampled = tiles.resample(grey, plan.height, plan.width)
    return describe(resampled, task.descriptors, task.imaging.um_per_px)
