"""The table of classical micrograph descriptors: what both sides mean by a name.

A lab computes them (client/descriptors); the coordinator only knows their names, their units and
the public constants that sums are taken about. Everything is measured in pixels and scaled by the
table, so that a value in µm is the value in px times µm per px, to the last bit but rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Group = Literal["fibres", "voids", "resin", "orientation", "cracks", "texture", "grains", "quality"]


class Quantity(NamedTuple):
    """A kind of number: its units with and without a known scale, and how it scales.

    Attributes
    ----------
    unit : str
        Where the size of a pixel is known; pint reads it.
    pixel_unit : str
        Where it is not.
    power : int
        Of a length: 1 for a length, -2 for a number per area.
    factor, pixel_factor : float
        Turn 1 µm**power and 1 px**power into the units.
    """

    unit: str
    pixel_unit: str
    power: int = 0
    factor: float = 1.0
    pixel_factor: float = 1.0


NUMBER = Quantity("dimensionless", "dimensionless")
ANGLE = Quantity("degree", "degree")
ENTROPY = Quantity("bit", "bit")
LENGTH = Quantity("um", "px", 1)
NUMBER_DENSITY = Quantity("1/mm^2", "1/Mpx", -2, 1e6, 1e6)
LENGTH_DENSITY = Quantity("mm/mm^2", "px/Mpx", -1, 1e3, 1e6)


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """What a descriptor is.

    Attributes
    ----------
    group : str
        Heading in a report.
    quantity : Quantity
    typical, pixel_typical : float
        Public constants near the middle of ordinary values, in `quantity.unit` and in
        `quantity.pixel_unit`, that sums are taken about.
    absent, pixel_absent : float
        What stands where the thing is not found.
    summary, reference : str
        One line each.
    """

    group: Group
    quantity: Quantity
    typical: float
    pixel_typical: float
    absent: float
    pixel_absent: float
    summary: str
    reference: str

    def unit(self, *, has_scale: bool) -> str:
        """Return the unit of a value from micrographs whose scale is known, or is not."""
        return self.quantity.unit if has_scale else self.quantity.pixel_unit

    def shift(self, *, has_scale: bool) -> float:
        """Return the typical value in that unit."""
        return self.typical if has_scale else self.pixel_typical

    def from_pixels(self, value: float | None, um_per_px: float | None) -> float:
        """Turn a value in powers of px into the unit; None into what stands for absence.

        Examples
        --------
        >>> diameter = DESCRIPTORS["fibre_diameter_um"]
        >>> diameter.from_pixels(28.0, 0.25), diameter.from_pixels(28.0, None)
        (7.0, 28.0)
        >>> DESCRIPTORS["void_count_per_mm2"].from_pixels(2e-6, 0.5)
        8.0
        """
        if um_per_px is None:
            return self.pixel_absent if value is None else value * self.quantity.pixel_factor
        if value is None:
            return self.absent
        return float(value * um_per_px**self.quantity.power * self.quantity.factor)


def _descriptor(
    group: Group,
    typical: tuple[float, float] | float,
    summary: str,
    reference: str,
    quantity: Quantity = NUMBER,
    absent: float | None = None,
) -> Descriptor:
    # a pair of typical values: in the unit, in pixels; without `absent` the typical one stands
    with_scale, in_pixels = typical if isinstance(typical, tuple) else (typical, typical)
    return Descriptor(
        group=group,
        quantity=quantity,
        typical=with_scale,
        pixel_typical=in_pixels,
        absent=with_scale if absent is None else absent,
        pixel_absent=in_pixels if absent is None else absent,
        summary=summary,
        reference=reference,
    )


_E112 = "ASTM E112"
_HARALICK = "Haralick et al. 1973"
_ADVANI = "Advani, Tucker 1987"
_BIGUN = "Bigün, Granlund 1987"

DESCRIPTORS: dict[str, Descriptor] = {
    "fibre_area_fraction": _descriptor(
        "fibres", 0.5, "share of the area that is fibre", "Otsu 1979; ASTM D3171", absent=0.0
    ),
    "fibre_count_per_mm2": _descriptor(
        "fibres",
        (13000.0, 1000.0),
        "fibres whose centre lies inside, per area",
        "Danielsson 1980",
        NUMBER_DENSITY,
        absent=0.0,
    ),
    "fibre_diameter_um": _descriptor(
        "fibres", (7.0, 25.0), "median fibre diameter", "Danielsson 1980", LENGTH
    ),
    "fibre_spacing_ratio": _descriptor(
        "fibres",
        1.1,
        "mean distance from a fibre's centre to the nearest one, in diameters",
        "Clark, Evans 1954",
    ),
    "fibre_spacing_variation": _descriptor(
        "fibres", 0.1, "coefficient of variation of that distance", "Clark, Evans 1954"
    ),
    "fibre_fraction_variation": _descriptor(
        "fibres",
        0.2,
        "coefficient of variation of the fibre fraction in windows of four diameters",
        "Pyrz 1994",
    ),
    "orientation_cos2": _descriptor(
        "orientation", 0.0, "mean of cos 2θ, θ from the rows' direction", _ADVANI
    ),
    "orientation_sin2": _descriptor(
        "orientation", 0.0, "mean of sin 2θ, counter-clockwise as seen", _ADVANI
    ),
    "orientation_order": _descriptor(
        "orientation", 0.2, "1: all runs one way; 0: no way before others", _ADVANI, absent=0.0
    ),
    "orientation_spread_deg": _descriptor(
        "orientation",
        40.0,
        "root mean square angle to the mean direction; 52° if all are alike",
        _BIGUN,
        ANGLE,
        absent=52.0,
    ),
    "coherency": _descriptor(
        "orientation", 0.5, "share of the gradients' energy that has a direction", _BIGUN
    ),
    "void_area_fraction": _descriptor(
        "voids", 0.02, "share of the area that is void", "ASTM D2734", absent=0.0
    ),
    "void_count_per_mm2": _descriptor(
        "voids", (150.0, 10.0), "voids per area", "Gundersen 1977", NUMBER_DENSITY, absent=0.0
    ),
    "void_median_diameter_um": _descriptor(
        "voids",
        (10.0, 35.0),
        "median diameter of the circles with the voids' areas",
        "ISO 9276-6",
        LENGTH,
        absent=0.0,
    ),
    "void_largest_diameter_um": _descriptor(
        "voids",
        (15.0, 50.0),
        "diameter of the circle with the largest void's area",
        "Murakami 2002",
        LENGTH,
        absent=0.0,
    ),
    "resin_rich_area_fraction": _descriptor(
        "resin",
        0.05,
        "share of the area where a disc of 1.25 fibre diameters fits between fibres",
        "Matheron 1975",
        absent=0.0,
    ),
    "resin_pocket_largest_um": _descriptor(
        "resin",
        (20.0, 70.0),
        "diameter of the circle with the area of the largest such pocket",
        "Matheron 1975",
        LENGTH,
        absent=0.0,
    ),
    "matrix_chord_length_um": _descriptor(
        "resin", (5.0, 18.0), "mean chord in the resin", "Underwood 1970", LENGTH
    ),
    "crack_length_density": _descriptor(
        "cracks", (1.0, 300.0), "length of cracks per area", "Steger 1998", LENGTH_DENSITY, 0.0
    ),
    "crack_count_per_mm2": _descriptor(
        "cracks", (50.0, 4.0), "cracks per area", "Steger 1998", NUMBER_DENSITY, 0.0
    ),
    "correlation_length_um": _descriptor(
        "texture",
        (2.5, 9.0),
        "distance at which the two-point correlation has fallen to 1/e",
        "Torquato 2002",
        LENGTH,
    ),
    "glcm_contrast": _descriptor(
        "texture", 4.0, "co-occurrence of 32 grey levels: mean squared difference", _HARALICK
    ),
    "glcm_homogeneity": _descriptor(
        "texture", 0.6, "co-occurrence: mean of 1 / (1 + difference²)", _HARALICK
    ),
    "glcm_correlation": _descriptor(
        "texture", 0.95, "co-occurrence: correlation of neighbours", _HARALICK
    ),
    "grey_entropy": _descriptor(
        "texture", 7.0, "entropy of the grey values", "Shannon 1948", ENTROPY, absent=0.0
    ),
    "grain_intercept_um": _descriptor(
        "grains", (4.0, 15.0), "mean lineal intercept between boundaries", _E112, LENGTH
    ),
    "focus": _descriptor(
        "quality", 0.1, "variance of the Laplacian over that of the grey", "Pertuz et al. 2013"
    ),
    "noise": _descriptor(
        "quality", 0.02, "standard deviation of the noise, of full scale", "Immerkær 1996"
    ),
}
"""The descriptors by name, in the order in which a report lists them."""
