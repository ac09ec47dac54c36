"""One micrograph with what several descriptors need, each computed once and only when asked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from client.descriptors.cracks import crack_mask
from client.descriptors.fibres import Fibres, find_fibres, spacing
from client.descriptors.flat_field import flatten
from client.descriptors.orientation import Orientation, find_orientation
from client.descriptors.phases import SMOOTHING_PX, Phases, segment
from client.descriptors.quality import noise
from client.descriptors.resin import pocket_mask
from client.descriptors.texture import cooccurrence, stretch
from client.descriptors.voids import Regions, regions, void_mask


@dataclass(frozen=True, eq=False)
class Picture:
    """A micrograph; masks are uint8 of shape (height, width), 0 or 1, lengths are in px.

    Attributes
    ----------
    grey : ndarray of shape (height, width), float32 in [0, 1]
    """

    grey: np.ndarray

    @cached_property
    def flat(self) -> np.ndarray:
        """Grey values under even light."""
        return flatten(self.grey)

    @cached_property
    def smooth(self) -> np.ndarray:
        """Flat grey values, with the noise blurred away."""
        return np.asarray(cv2.GaussianBlur(self.flat, (0, 0), SMOOTHING_PX))

    @cached_property
    def phases(self) -> Phases:
        """Fibres and what is dark."""
        return segment(self.smooth)

    @cached_property
    def fibres(self) -> Fibres | None:
        """Centres and diameter."""
        return find_fibres(self.phases.fibre)

    @property
    def fibre_diameter(self) -> float | None:
        """Median diameter."""
        return None if self.fibres is None else self.fibres.diameter

    @cached_property
    def spacing(self) -> tuple[float, float] | None:
        """Nearest neighbours' distance over diameter, and its variation."""
        return None if self.fibres is None else spacing(self.fibres, self.phases.fibre.shape)

    @cached_property
    def voids(self) -> Regions:
        """Dark regions too wide for a crack."""
        return regions(void_mask(self.phases.dark, self.fibre_diameter))

    @cached_property
    def resin(self) -> np.ndarray:
        """What is neither fibre nor void."""
        return np.asarray(1 - (self.phases.fibre | self.voids.mask), dtype=np.uint8)

    @cached_property
    def pockets(self) -> Regions | None:
        """Regions rich in resin; None where no fibre gives the scale."""
        if self.fibre_diameter is None:
            return None
        return regions(pocket_mask(self.resin, self.fibre_diameter))

    @cached_property
    def cracks(self) -> np.ndarray:
        """Centre lines of cracks, bool."""
        return crack_mask(self.flat, self.phases, self.voids.mask, self.noise)

    @cached_property
    def orientation(self) -> Orientation | None:
        """Directions of the structure."""
        return find_orientation(self.flat)

    @cached_property
    def stretched(self) -> np.ndarray:
        """Flat grey values, stretched to uint8."""
        return stretch(self.flat)

    @cached_property
    def cooccurrence(self) -> np.ndarray:
        """Grey-level co-occurrence matrices."""
        return cooccurrence(self.stretched)

    @cached_property
    def noise(self) -> float:
        """Standard deviation of the noise."""
        return noise(self.grey)
