"""Which measurement stands behind which name: one line each, in powers of px."""

from __future__ import annotations

from collections.abc import Callable

from skimage.feature import graycoprops

from client.descriptors import cracks, texture
from client.descriptors.fibres import fraction_variation
from client.descriptors.grains import mean_intercept
from client.descriptors.orientation import Orientation
from client.descriptors.picture import Picture
from client.descriptors.quality import focus
from client.descriptors.resin import mean_chord
from client.descriptors.voids import Regions

Measure = Callable[[Picture], float | None]
"""Measures a descriptor; None where the thing is not found."""


def _fibre_fraction(picture: Picture) -> float:
    return float(picture.phases.fibre.mean())


def _fibre_density(picture: Picture) -> float:
    # no fibre found is a count, unlike the diameter of none
    return 0.0 if picture.fibres is None else picture.fibres.density


def _spacing(index: int) -> Measure:
    return lambda picture: None if picture.spacing is None else picture.spacing[index]


def _fraction_variation(picture: Picture) -> float | None:
    diameter = picture.fibre_diameter
    return None if diameter is None else fraction_variation(picture.phases.fibre, diameter)


def _of_orientation(read: Callable[[Orientation], float]) -> Measure:
    return lambda picture: None if picture.orientation is None else read(picture.orientation)


def _of_pockets(read: Callable[[Regions], float | None]) -> Measure:
    return lambda picture: None if picture.pockets is None else read(picture.pockets)


def _glcm(name: str) -> Measure:
    return lambda picture: float(graycoprops(picture.cooccurrence, name).mean())


MEASURES: dict[str, Measure] = {
    "fibre_area_fraction": _fibre_fraction,
    "fibre_count_per_mm2": _fibre_density,
    "fibre_diameter_um": lambda picture: picture.fibre_diameter,
    "fibre_spacing_ratio": _spacing(0),
    "fibre_spacing_variation": _spacing(1),
    "fibre_fraction_variation": _fraction_variation,
    "orientation_cos2": _of_orientation(lambda found: float(found.mean[0])),
    "orientation_sin2": _of_orientation(lambda found: float(found.mean[1])),
    "orientation_order": _of_orientation(lambda found: found.order),
    "orientation_spread_deg": _of_orientation(lambda found: found.spread),
    "coherency": _of_orientation(lambda found: found.coherency),
    "void_area_fraction": lambda picture: picture.voids.fraction,
    "void_count_per_mm2": lambda picture: picture.voids.number_density,
    "void_median_diameter_um": lambda picture: picture.voids.median_diameter,
    "void_largest_diameter_um": lambda picture: picture.voids.largest_diameter,
    "resin_rich_area_fraction": _of_pockets(lambda found: found.fraction),
    "resin_pocket_largest_um": _of_pockets(lambda found: found.largest_diameter),
    "matrix_chord_length_um": lambda picture: mean_chord(picture.resin),
    "crack_length_density": lambda picture: cracks.length(picture.cracks) / picture.grey.size,
    "crack_count_per_mm2": lambda picture: cracks.count(picture.cracks) / picture.grey.size,
    "correlation_length_um": lambda picture: texture.correlation_length(picture.flat),
    "glcm_contrast": _glcm("contrast"),
    "glcm_homogeneity": _glcm("homogeneity"),
    "glcm_correlation": _glcm("correlation"),
    "grey_entropy": lambda picture: texture.entropy(picture.stretched),
    "grain_intercept_um": lambda picture: mean_intercept(picture.flat),
    "focus": lambda picture: focus(picture.grey, picture.noise),
    "noise": lambda picture: picture.noise,
}
