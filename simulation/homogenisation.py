"""Effective elasticity of a periodic section, solved with fast Fourier transforms.

The cell problem (find the strain field of given mean that is compatible and whose stress is in
equilibrium) is that of Moulinec and Suquet, Comput. Methods Appl. Mech. Eng. 157 (1998) 69-94.
Three later ideas are used on top of it:

- conjugate gradients instead of the fixed-point iteration: Zeman, Vondřejc, Novák and Marek,
  J. Comput. Phys. 229 (2010) 8065-8071;
- the reference medium only as a projector onto compatible fields: Vondřejc, Zeman and Marek,
  Comput. Math. Appl. 68 (2014) 156-173;
- the rotated finite-difference scheme, which converges with pores, that is with pixels of no
  stiffness at all: Willot, C. R. Mécanique 343 (2015) 232-245.

Inside, a symmetric 2x2 tensor is the vector (xx, yy, sqrt(2) xy), so that norms are Euclidean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft

from common.errors import CrossplyError

FloatArray = npt.NDArray[np.floating]

MAX_ITERATIONS = 2000
ROOT2 = 2.0**0.5


@dataclass(frozen=True, kw_only=True)
class Phase:
    """An isotropic elastic phase.

    Attributes
    ----------
    youngs_modulus : float, in GPa
    poissons_ratio : float
    """

    youngs_modulus: float
    poissons_ratio: float

    @property
    def lame(self) -> tuple[float, float]:
        """Lamé's first parameter and the shear modulus, in GPa.

        Examples
        --------
        >>> Phase(youngs_modulus=2.5, poissons_ratio=0.25).lame
        (1.0, 1.0)
        """
        shear = self.youngs_modulus / (2 * (1 + self.poissons_ratio))
        return 2 * shear * self.poissons_ratio / (1 - 2 * self.poissons_ratio), shear


EPOXY = Phase(youngs_modulus=3.5, poissons_ratio=0.35)
CARBON = Phase(youngs_modulus=15.0, poissons_ratio=0.2)
"""Typical values: Soden, Hinton and Kaddour, Compos. Sci. Technol. 58 (1998) 1011-1022, list
resins of 3.35 to 4.2 GPa, and 15 GPa across AS4 and T300 fibres."""


def pixel_moduli(fibre: FloatArray, void: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return Lamé's parameters of pixels that edges cut through.

    Fibre and resin in one pixel share the stress (Reuss): most such pixels bridge a narrow gap
    between two fibres, where resin carries the load in series. A void takes stiffness away by
    the factor (1 - f) / (1 + 2 f), the bound of Hashin (J. Mech. Phys. Solids 13 (1965) 119-134)
    on the in-plane modulus of a sheet with the share f of holes.

    Parameters
    ----------
    fibre, void : ndarray of one shape, shares from 0 to 1

    Returns
    -------
    tuple of two ndarrays of that shape, in GPa

    Examples
    --------
    >>> first, shear = pixel_moduli(np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0]))
    >>> (shear == np.array([EPOXY.lame[1], CARBON.lame[1], 0.0])).all()
    np.True_
    """
    fibre_of_solid = np.clip(fibre / np.maximum(1 - void, 1e-9), 0, 1)
    left = (1 - void) / (1 + 2 * void)
    first, shear = (
        left / (fibre_of_solid / of_carbon + (1 - fibre_of_solid) / of_epoxy)
        for of_carbon, of_epoxy in zip(CARBON.lame, EPOXY.lame, strict=True)
    )
    return first, shear


def effective_stiffness(
    lame_first: FloatArray, shear: FloatArray, *, tolerance: float = 1e-8
) -> npt.NDArray[np.float64]:
    """Solve the cell problem in plane strain, and return the effective stiffness.

    Each pixel is isotropic. In plane strain its in-plane stress is ``lame_first * tr(strain) +
    2 * shear * strain``, and a pixel with both zero is a void. The fields are computed in the
    precision of the input.

    Parameters
    ----------
    lame_first, shear : ndarray of shape (num_rows, num_columns), in GPa
        Lamé's parameters of each pixel; x runs along columns, y along rows. Both numbers are
        odd, which leaves no Nyquist frequency, whose derivative would not be defined.
    tolerance : float
        Iteration ends when, for each of the three mean strains, the part of the stress that is
        out of equilibrium (its projection onto compatible fields) has a root mean square below
        this share of the mean stress. The stiffness is taken from the energy, so that its
        relative error goes with the square of it.

    Returns
    -------
    ndarray of shape (3, 3), in GPa
        Voigt: (xx, yy, xy), with the engineering shear strain.

    Raises
    ------
    ValueError
        If the shapes differ or a number of pixels is even.

    Examples
    --------
    >>> effective_stiffness(np.full((5, 5), 2.0), np.full((5, 5), 1.0))
    array([[4., 2., 0.],
           [2., 4., 0.],
           [0., 0., 1.]])
    """
    if lame_first.shape != shear.shape or not all(size % 2 for size in shear.shape):
        raise ValueError(
            f"two fields of one odd shape are needed, found {lame_first.shape} and {shear.shape}"
        )
    strain = _equilibrium_strain(lame_first, shear, tolerance)
    stress = _stress(lame_first, shear, strain)
    energy = np.einsum("ikab,jkab->ij", strain, stress, dtype=np.float64) / shear.size
    to_voigt = np.diag([1.0, 1.0, 1 / ROOT2])
    stiffness: npt.NDArray[np.float64] = to_voigt @ ((energy + energy.T) / 2) @ to_voigt
    return stiffness


def transverse_modulus(stiffness: npt.NDArray[np.float64], axis: int = 0) -> float:
    """Return the modulus that a tensile test along `axis` measures, in the unit of `stiffness`.

    It is 1 / S_ii of the inverted in-plane stiffness: tension along one in-plane axis, free
    contraction along the other, and none along the fibres, which are stiff enough to suppress it
    (plane strain). For an isotropic medium it is E / (1 - nu**2).

    Examples
    --------
    >>> first, shear = Phase(youngs_modulus=3.0, poissons_ratio=0.5 - 0.25).lame
    >>> stiffness = effective_stiffness(np.full((3, 3), first), np.full((3, 3), shear))
    >>> round(transverse_modulus(stiffness), 6)
    3.2
    """
    return float(1 / np.linalg.inv(stiffness)[axis, axis])


def _equilibrium_strain(lame_first: FloatArray, shear: FloatArray, tolerance: float) -> FloatArray:
    # conjugate gradients on three right-hand sides at once, one for each mean strain
    normal = _incompatible_direction(shear.shape, shear.dtype)
    strain = np.zeros((3, 3, *shear.shape), dtype=shear.dtype)
    strain[range(3), range(3)] = 1
    stress = _stress(lame_first, shear, strain)
    scale = np.linalg.norm(stress.mean(axis=(2, 3)), axis=1) * shear.size**0.5
    residual = -_project(normal, stress)
    direction = residual.copy()
    squared = _dot(residual, residual)
    for _ in range(MAX_ITERATIONS):
        if np.all(np.sqrt(squared) <= tolerance * scale):
            return strain
        image = _project(normal, _stress(lame_first, shear, direction))
        step = squared / np.maximum(_dot(direction, image), np.finfo(np.float64).tiny)
        strain += _columns(step, shear.dtype) * direction
        residual -= _columns(step, shear.dtype) * image
        previous, squared = squared, _dot(residual, residual)
        ratio = squared / np.maximum(previous, np.finfo(np.float64).tiny)
        direction *= _columns(ratio, shear.dtype)
        direction += residual
    raise CrossplyError(
        f"the stress is not in equilibrium to {tolerance:g} after {MAX_ITERATIONS} iterations; "
        "ask for a larger tolerance"
    )


def _stress(lame_first: FloatArray, shear: FloatArray, strain: FloatArray) -> FloatArray:
    stress: FloatArray = 2 * shear * strain
    stress[:, :2] += (lame_first * (strain[:, 0] + strain[:, 1]))[:, None]
    return stress


def _project(normal: FloatArray, field: FloatArray) -> FloatArray:
    # In two dimensions the fields that are no symmetric gradient have, at each frequency, the
    # one direction m (x) m with m across the frequency: take that part away, and the mean.
    spectrum = fft.rfft2(field)
    amplitude = normal[0] * spectrum[:, 0] + normal[1] * spectrum[:, 1] + normal[2] * spectrum[:, 2]
    spectrum -= normal * amplitude[:, None]
    spectrum[:, :, 0, 0] = 0
    compatible: FloatArray = fft.irfft2(spectrum, s=field.shape[-2:], overwrite_x=True)
    return compatible


def _incompatible_direction(shape: tuple[int, ...], dtype: npt.DTypeLike) -> FloatArray:
    # tan(pi k / n) instead of k: Willot's derivative up to a factor common to x and y
    across_y = np.tan(np.pi * fft.fftfreq(shape[0]))[:, None]
    across_x = np.tan(np.pi * fft.rfftfreq(shape[1]))[None, :]
    length = np.hypot(across_x, across_y)
    length[0, 0] = 1.0
    along_x, along_y = across_x / length, across_y / length
    return np.stack([along_y**2, along_x**2, -ROOT2 * along_x * along_y]).astype(dtype)


def _dot(one: FloatArray, other: FloatArray) -> npt.NDArray[np.float64]:
    # not by BLAS, whose sum depends on its number of threads
    return np.asarray(np.einsum("ikab,ikab->i", one, other), dtype=np.float64)


def _columns(values: npt.NDArray[np.float64], dtype: npt.DTypeLike) -> FloatArray:
    return np.asarray(values, dtype=dtype)[:, None, None, None]
