"""Transverse tensile strength of a section, governed by its largest defect.

Defects are measured as Murakami does (Metal Fatigue: Effects of Small Defects and Nonmetallic
Inclusions, Elsevier 2002, chapter 2): by the square root of the area that a defect projects onto
the plane across the load, estimated from what a section shows of it. An internal defect raises
the stress intensity to at most ``K = 0.5 * stress * sqrt(pi * sqrt(area))``, whatever its shape,
and the section fails when that reaches the toughness. For defects that vanish this would make the
material infinitely strong; El Haddad, Smith and Topper (J. Eng. Mater. Technol. 101 (1979) 42-46)
add to each length the one at which the defect-free material fails, and the strength then tends to
that of the material. They did so for fatigue; the correction is one of lengths, and serves a
static load as well.

The toughness here is not that of bulk epoxy (0.5 to 1 MPa sqrt(m)): a transverse crack starts as
a debond of a carbon fibre, and an interface that takes about 22 J/m² has, with the plane-strain
modulus of the resin, sqrt(22 J/m² * 4 GPa) = 0.3 MPa sqrt(m).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulation.composites import Section

INTERNAL_DEFECT = 0.5


@dataclass(frozen=True, kw_only=True)
class Resistance:
    """What the material opposes to a defect.

    Attributes
    ----------
    toughness : float, in MPa sqrt(m)
    defect_free_strength : float, in MPa
    """

    toughness: float = 0.3
    defect_free_strength: float = 80.0

    @property
    def length_um(self) -> float:
        """El Haddad's length: a defect this large halves the square of the strength, in µm."""
        ratio = self.toughness / (INTERNAL_DEFECT * self.defect_free_strength)
        return float(ratio**2 / np.pi * 1e6)


def largest_defect_um(section: Section) -> float:
    """Return Murakami's sqrt(area) of the largest defect, in µm.

    As in his rating of inclusions on a polished section (J. Res. Natl. Inst. Stand. Technol. 99
    (1994) 345-351), the area of a void is the one seen. A crack shows its edge only, and counts
    as a disc as wide as the crack is long. A section without defects gives zero. Voids and cracks
    of a random section lie apart, so each counts alone.

    Examples
    --------
    >>> void = np.array([[10.0, 10.0, 6.0, 2.0, np.pi / 2]])
    >>> section = Section(side=20.0, fibres=np.empty((0, 3)), voids=void)
    >>> round(largest_defect_um(section), 3), round((np.pi * 6.0 * 2.0) ** 0.5, 3)
    (6.14, 6.14)
    """
    sizes = list(np.sqrt(np.pi * section.voids[:, 2] * section.voids[:, 3]))
    for line in section.cracks:
        sizes.append(float(np.hypot(*(line[-1] - line[0])) * (np.pi / 4) ** 0.5))
    return float(max(sizes, default=0.0))


def transverse_strength(defect_um: float, resistance: Resistance | None = None) -> float:
    """Return the stress at which the defect's stress intensity reaches the toughness, in MPa.

    Parameters
    ----------
    defect_um : float
        Square root of the defect's projected area, in µm.
    resistance : Resistance, optional

    Examples
    --------
    >>> resistance = Resistance()
    >>> round(transverse_strength(0.0), 3)
    80.0
    >>> round(transverse_strength(resistance.length_um), 3), round(80 / 2**0.5, 3)
    (56.569, 56.569)
    """
    resistance = resistance or Resistance()
    length_m = (defect_um + resistance.length_um) * 1e-6
    return float(resistance.toughness / (INTERNAL_DEFECT * np.sqrt(np.pi * length_m)))
