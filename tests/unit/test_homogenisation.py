from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from simulation.composites import Recipe, Section, random_section, rasterise
from simulation.homogenisation import (
    CARBON,
    EPOXY,
    Phase,
    effective_stiffness,
    pixel_moduli,
    transverse_modulus,
)

Array = npt.NDArray[Any]

FIBRES = random_section(Recipe(fibre_fraction=0.55), side=60.0, rng=np.random.default_rng(3))
POROUS = random_section(
    Recipe(fibre_fraction=0.45, voids_um=(14.0, 9.0)), side=60.0, rng=np.random.default_rng(4)
)


def fields(is_fibre: Array) -> tuple[Array, ...]:
    return tuple(
        np.where(is_fibre, of_carbon, of_epoxy)
        for of_carbon, of_epoxy in zip(CARBON.lame, EPOXY.lame, strict=True)
    )


def solve(section: Section, num_px: int, tolerance: float = 1e-8) -> Array:
    coverage = rasterise(section, num_px)
    return effective_stiffness(
        *pixel_moduli(coverage.fibre, coverage.void + coverage.crack), tolerance=tolerance
    )


def laminate(share: float) -> Array:
    """Layers across x in plane strain, from continuity of the stress and strain that they share."""
    (first_f, shear_f), (first_m, shear_m) = CARBON.lame, EPOXY.lame

    def mean(of_fibre: float, of_matrix: float) -> float:
        return share * of_fibre + (1 - share) * of_matrix

    across_f, across_m = first_f + 2 * shear_f, first_m + 2 * shear_m
    c11 = 1 / mean(1 / across_f, 1 / across_m)
    c12 = c11 * mean(first_f / across_f, first_m / across_m)
    c22 = mean(across_f - first_f**2 / across_f, across_m - first_m**2 / across_m) + c12**2 / c11
    c66 = 1 / mean(1 / shear_f, 1 / shear_m)
    return np.array([[c11, c12, 0], [c12, c22, 0], [0, 0, c66]])


def test_a_homogeneous_medium_is_itself() -> None:
    first, shear = EPOXY.lame
    stiffness = effective_stiffness(np.full((9, 7), first), np.full((9, 7), shear))

    expected = [[first + 2 * shear, first, 0], [first, first + 2 * shear, 0], [0, 0, shear]]
    np.testing.assert_allclose(stiffness, expected, rtol=1e-12, atol=1e-12)
    plane_strain = EPOXY.youngs_modulus / (1 - EPOXY.poissons_ratio**2)
    assert transverse_modulus(stiffness) == pytest.approx(plane_strain, rel=1e-12)


@pytest.mark.parametrize("num_layers", [1, 7])
def test_layers_have_the_stiffness_of_the_exact_laminate(num_layers: int) -> None:
    columns = np.arange(35) % (35 // num_layers) < 15 // num_layers
    share = columns.mean()
    across_x = effective_stiffness(*fields(np.tile(columns, (9, 1))))
    across_y = effective_stiffness(*fields(np.tile(columns[:, None], (1, 9))))

    exact = laminate(share)
    np.testing.assert_allclose(across_x, exact, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(across_y, exact[[1, 0, 2]][:, [1, 0, 2]], rtol=1e-6, atol=1e-9)


def test_turning_a_section_by_90_degrees_swaps_its_axes() -> None:
    is_fibre = rasterise(FIBRES, 45).fibre > 0.5
    stiffness = effective_stiffness(*fields(is_fibre))
    turned = effective_stiffness(*fields(np.rot90(is_fibre)))

    np.testing.assert_allclose(turned[:2, :2], stiffness[:2, :2][::-1, ::-1], rtol=1e-9)
    assert turned[2, 2] == pytest.approx(stiffness[2, 2], rel=1e-9)
    np.testing.assert_allclose(turned[:2, 2], -stiffness[:2, 2][::-1], atol=1e-7)
    assert transverse_modulus(turned, axis=1) == pytest.approx(transverse_modulus(stiffness))


@pytest.mark.parametrize("section", [FIBRES, POROUS])
def test_the_stiffness_is_symmetric_and_positive(section: Section) -> None:
    stiffness = solve(section, 45)

    np.testing.assert_array_equal(stiffness, stiffness.T)
    assert np.linalg.eigvalsh(stiffness).min() > 0


def test_random_fibres_lie_within_the_bounds_of_hashin() -> None:
    is_fibre = rasterise(FIBRES, 105).fibre > 0.5
    share = is_fibre.mean()
    stiffness = effective_stiffness(*fields(is_fibre))
    bulk = (stiffness[0, 0] + stiffness[1, 1] + 2 * stiffness[0, 1]) / 4
    shear = ((stiffness[0, 0] + stiffness[1, 1] - 2 * stiffness[0, 1]) / 4 + stiffness[2, 2]) / 2

    lower = hashin(EPOXY, CARBON, share)
    upper = hashin(CARBON, EPOXY, 1 - share)
    assert lower[0] < bulk < upper[0]
    assert lower[1] < shear < upper[1]


def hashin(around: Phase, inside: Phase, share: float) -> tuple[float, float]:
    """Return Hashin's (1965) bounds on the plane-strain bulk and the transverse shear modulus."""
    (first_a, shear_a), (first_i, shear_i) = around.lame, inside.lame
    bulk_a, bulk_i = first_a + shear_a, first_i + shear_i
    rest = 1 - share
    bulk = bulk_a + share / (1 / (bulk_i - bulk_a) + rest / (bulk_a + shear_a))
    stiffening = rest * (bulk_a + 2 * shear_a) / (2 * shear_a * (bulk_a + shear_a))
    return bulk, shear_a + share / (1 / (shear_i - shear_a) + stiffening)


def test_a_dilute_void_weakens_as_the_exact_solution_says() -> None:
    num_px = 189
    across = np.arange(num_px) - num_px // 2
    share_of_void = (np.hypot(across[:, None], across) < 12).astype(float)
    share = share_of_void.mean()
    stiffness = effective_stiffness(*pixel_moduli(np.zeros_like(share_of_void), share_of_void))

    whole = EPOXY.youngs_modulus / (1 - EPOXY.poissons_ratio**2)
    # a hole in a plate: 1 / E = (1 + 3 f) / E_matrix to first order
    assert transverse_modulus(stiffness) == pytest.approx(whole / (1 + 3 * share), rel=0.01)


@pytest.mark.parametrize("section", [FIBRES, POROUS])
def test_a_finer_grid_comes_closer(section: Section) -> None:
    coarse, middle, fine = (
        transverse_modulus(solve(section, size, 1e-4)) for size in (45, 75, 165)
    )

    assert abs(middle - fine) < abs(coarse - fine)
    assert middle == pytest.approx(fine, rel=0.02)


def test_single_precision_and_a_loose_tolerance_change_the_modulus_by_less_than_1e_4() -> None:
    coverage = rasterise(POROUS, 75)
    first, shear = pixel_moduli(coverage.fibre, coverage.void)
    exact = effective_stiffness(first, shear, tolerance=1e-9)
    quick = effective_stiffness(first.astype(np.float32), shear.astype(np.float32), tolerance=1e-3)

    assert transverse_modulus(quick) == pytest.approx(transverse_modulus(exact), rel=1e-4)


def test_an_even_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="odd shape"):
        effective_stiffness(np.ones((4, 5)), np.ones((4, 5)))


def test_lame_parameters_give_the_modulus_back() -> None:
    first, shear = Phase(youngs_modulus=10.0, poissons_ratio=0.3).lame

    assert shear * (3 * first + 2 * shear) / (first + shear) == pytest.approx(10.0)
