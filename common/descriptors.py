"""The table of classical micrograph descriptors: what both sides mean by a name.

A lab computes them (client/descriptors); the coordinator only knows their names, their units and
the public constants that sums are taken about. Everything is measured in pixels and scaled by the
table, so that a value in µm is the value in px times µm per px.

The file is long because it is one table, to be read beside docs/descriptors.md.
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
    typical : float
        A public constant near the middle of ordinary values, in `quantity.unit`, that sums are
        taken about.
    pixel_typical : float or None
        The same in `quantity.pixel_unit`; None where the two units are one.
    absent : float or None
        What stands, in either unit, where the thing is not found; None for the typical value.
    summary, reference : str
        One line each.
    """

    group: Group
    quantity: Quantity = NUMBER
    typical: float
    pixel_typical: float | None = None
    absent: float | None = None
    summary: str
    reference: str

    def unit(self, *, has_scale: bool) -> str:
        """Return the unit of a value from micrographs whose scale is known, or is not."""
        return self.quantity.unit if has_scale else self.quantity.pixel_unit

    def shift(self, *, has_scale: bool) -> float:
        """Return the typical value in that unit, the constant that sums are taken about.

        Examples
        --------
        >>> diameter = DESCRIPTORS["fibre_diameter_um"]
        >>> [(diameter.unit(has_scale=known), diameter.shift(has_scale=known)) for known in (1, 0)]
        [('um', 7.0), ('px', 25.0)]
        """
        if has_scale or self.pixel_typical is None:
            return self.typical
        return self.pixel_typical

    def absence(self, *, has_scale: bool) -> float:
        """Return what stands in that unit where the thing is not found."""
        return self.shift(has_scale=has_scale) if self.absent is None else self.absent

    def from_pixels(self, value: float, um_per_px: float | None) -> float:
        """Turn a value in powers of px into the unit.

        Examples
        --------
        >>> diameter = DESCRIPTORS["fibre_diameter_um"]
        >>> diameter.from_pixels(28.0, 0.25), diameter.from_pixels(28.0, None)
        (7.0, 28.0)
        >>> DESCRIPTORS["void_count_per_mm2"].from_pixels(2e-6, 0.5)
        8.0
        """
        if um_per_px is None:
            return value * self.quantity.pixel_factor
        return float(value * um_per_px**self.quantity.power * self.quantity.factor)


DESCRIPTORS: dict[str, Descriptor] = {
    "fibre_area_fraction": Descriptor(
        group="fibres",
        typical=0.5,
        absent=0.0,
        summary="share of the area that is fibre",
        reference="Otsu 1979; Marr, Hildreth 1980",
    ),
    "fibre_count_per_mm2": Descriptor(
        group="fibres",
        quantity=NUMBER_DENSITY,
        typical=13000.0,
        pixel_typical=800.0,
        absent=0.0,
        summary="fibres whose centre lies inside, per area",
        reference="Danielsson 1980",
    ),
    "fibre_diameter_um": Descriptor(
        group="fibres",
        quantity=LENGTH,
        typical=7.0,
        pixel_typical=25.0,
        summary="diameter of the circle with a fibre's mean area",
        reference="Danielsson 1980",
    ),
    "fibre_spacing_ratio": Descriptor(
        group="fibres",
        typical=1.05,
        summary="mean distance from a fibre's centre to the nearest one, in diameters",
        reference="Clark, Evans 1954",
    ),
    "fibre_spacing_variation": Descriptor(
        group="fibres",
        typical=0.07,
        summary="coefficient of variation of that distance",
        reference="Clark, Evans 1954",
    ),
    "fibre_fraction_variation": Descriptor(
        group="fibres",
        typical=0.2,
        summary="coefficient of variation of the fibre fraction in windows of four diameters",
        reference="Pyrz 1994",
    ),
    "orientation_cos2": Descriptor(
        group="orientation",
        typical=0.0,
        summary="mean of cos 2θ, θ from the rows' direction",
        reference="Advani, Tucker 1987",
    ),
    "orientation_sin2": Descriptor(
        group="orientation",
        typical=0.0,
        summary="mean of sin 2θ, counter-clockwise as seen",
        reference="Advani, Tucker 1987",
    ),
    "orientation_order": Descriptor(
        group="orientation",
        typical=0.1,
        absent=0.0,
        summary="1: all runs one way; 0: no way before others",
        reference="Advani, Tucker 1987",
    ),
    "orientation_spread_deg": Descriptor(
        group="orientation",
        quantity=ANGLE,
        typical=50.0,
        absent=52.0,
        summary="root mean square angle to the mean direction; 52° if all are alike",
        reference="Bigün, Granlund 1987",
    ),
    "coherency": Descriptor(
        group="orientation",
        typical=0.45,
        summary="share of the gradients' energy that has a direction",
        reference="Bigün, Granlund 1987",
    ),
    "void_area_fraction": Descriptor(
        group="voids",
        typical=0.02,
        absent=0.0,
        summary="share of the area that is void",
        reference="Paciornik, d'Almeida 2009",
    ),
    "void_count_per_mm2": Descriptor(
        group="voids",
        quantity=NUMBER_DENSITY,
        typical=150.0,
        pixel_typical=10.0,
        absent=0.0,
        summary="voids per area",
        reference="Gundersen 1977",
    ),
    "void_median_diameter_um": Descriptor(
        group="voids",
        quantity=LENGTH,
        typical=10.0,
        pixel_typical=35.0,
        absent=0.0,
        summary="median diameter of the circles with the voids' areas",
        reference="ISO 9276-6",
    ),
    "void_largest_diameter_um": Descriptor(
        group="voids",
        quantity=LENGTH,
        typical=15.0,
        pixel_typical=50.0,
        absent=0.0,
        summary="diameter of the circle with the largest void's area",
        reference="Murakami 2002",
    ),
    "resin_rich_area_fraction": Descriptor(
        group="resin",
        typical=0.03,
        absent=0.0,
        summary="share of the area where a disc with a radius of 1.25 fibre diameters fits",
        reference="Matheron 1975",
    ),
    "resin_pocket_largest_um": Descriptor(
        group="resin",
        quantity=LENGTH,
        typical=25.0,
        pixel_typical=90.0,
        absent=0.0,
        summary="diameter of the circle with the area of the largest such pocket",
        reference="Matheron 1975",
    ),
    "matrix_chord_length_um": Descriptor(
        group="resin",
        quantity=LENGTH,
        typical=7.0,
        pixel_typical=25.0,
        summary="mean chord in the resin",
        reference="Underwood 1970",
    ),
    "crack_length_density": Descriptor(
        group="cracks",
        quantity=LENGTH_DENSITY,
        typical=1.0,
        pixel_typical=300.0,
        absent=0.0,
        summary="length of cracks per area",
        reference="Steger 1998",
    ),
    "crack_count_per_mm2": Descriptor(
        group="cracks",
        quantity=NUMBER_DENSITY,
        typical=100.0,
        pixel_typical=8.0,
        absent=0.0,
        summary="cracks per area",
        reference="Steger 1998",
    ),
    "correlation_length_um": Descriptor(
        group="texture",
        quantity=LENGTH,
        typical=3.0,
        pixel_typical=12.0,
        summary="distance at which the two-point correlation has fallen to 1/e",
        reference="Torquato 2002",
    ),
    "glcm_contrast": Descriptor(
        group="texture",
        typical=5.0,
        summary="co-occurrence of 32 grey levels: mean squared difference",
        reference="Haralick et al. 1973",
    ),
    "glcm_homogeneity": Descriptor(
        group="texture",
        typical=0.5,
        summary="co-occurrence: mean of 1 / (1 + difference²)",
        reference="Haralick et al. 1973",
    ),
    "glcm_correlation": Descriptor(
        group="texture",
        typical=0.95,
        summary="co-occurrence: correlation of neighbours",
        reference="Haralick et al. 1973",
    ),
    "grey_entropy": Descriptor(
        group="texture",
        quantity=ENTROPY,
        typical=7.0,
        absent=0.0,
        summary="entropy of the grey values",
        reference="Shannon 1948",
    ),
    "grain_intercept_um": Descriptor(
        group="grains",
        quantity=LENGTH,
        typical=7.0,
        pixel_typical=25.0,
        summary="mean lineal intercept between boundaries",
        reference="ASTM E112",
    ),
    "focus": Descriptor(
        group="quality",
        typical=0.1,
        summary="variance of the Laplacian over that of the grey",
        reference="Pertuz et al. 2013",
    ),
    "noise": Descriptor(
        group="quality",
        typical=0.02,
        summary="standard deviation of the noise, of full scale",
        reference="Immerkær 1996",
    ),
}
"""The descriptors by name, in the order in which a report lists them."""
