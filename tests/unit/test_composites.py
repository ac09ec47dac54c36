from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from common.errors import CrossplyError
from simulation.composites import (
    CRACK_WIDTH_UM,
    Recipe,
    Section,
    random_section,
    rasterise,
)
from simulation.strength import Resistance, largest_defect_um, transverse_strength

Array = npt.NDArray[Any]

SIDE = 112.0
BUSY = Recipe(fibre_fraction=0.55, voids_um=(20.0, 9.0), pockets_um=(18.0,), cracks_um=(18.0, 12.0))


def busy(seed: int) -> Section:
    return random_section(BUSY, side=SIDE, rng=np.random.default_rng(seed))


def distances(points: Array, others: Array) -> Array:
    span = points[:, None, :2] - others[None, :, :2]
    span -= SIDE * np.round(span / SIDE)
    return np.asarray(np.hypot(span[..., 0], span[..., 1]))


@pytest.mark.parametrize("fraction", [0.35, 0.5, 0.62])
def test_no_two_fibres_overlap(fraction: float) -> None:
    recipe = Recipe(fibre_fraction=fraction)
    fibres = random_section(recipe, side=SIDE, rng=np.random.default_rng(1)).fibres
    apart = distances(fibres, fibres) - fibres[:, 2, None] - fibres[None, :, 2]
    np.fill_diagonal(apart, np.inf)

    assert apart.min() > 0


def test_the_fibre_fraction_is_the_one_asked_for() -> None:
    assert busy(0).fibre_fraction == pytest.approx(BUSY.fibre_fraction, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_fibres_keep_clear_of_voids(seed: int) -> None:
    section = busy(seed)
    for x, y, long, short, angle in section.voids:
        turn = np.linspace(0, 2 * np.pi, 720)
        edge = np.column_stack([long * np.cos(turn), short * np.sin(turn)])
        rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        edge = edge @ rotation + (x, y)
        assert (distances(edge, section.fibres) - section.fibres[:, 2]).min() > 0


def test_voids_have_the_areas_asked_for() -> None:
    expected = np.pi / 4 * np.square(BUSY.voids_um).sum() / SIDE**2

    assert busy(0).void_fraction == pytest.approx(expected, rel=1e-12)


def test_cracks_run_around_fibres_and_have_their_length() -> None:
    section = busy(0)

    for line, length in zip(section.cracks, BUSY.cracks_um, strict=True):
        inside = section.fibres[:, 2] - distances(line, section.fibres)
        # in a gap narrower than the crack its centre line may touch the next fibre
        assert inside.max() < CRACK_WIDTH_UM / 4
        assert np.hypot(*(line[-1] - line[0])) == pytest.approx(length, abs=5.0)


def test_the_same_seed_gives_the_same_section() -> None:
    one, other = busy(5), busy(5)

    np.testing.assert_array_equal(one.fibres, other.fibres)
    np.testing.assert_array_equal(one.voids, other.voids)


def test_too_many_fibres_are_refused() -> None:
    with pytest.raises(CrossplyError, match="do not fit"):
        random_section(Recipe(fibre_fraction=0.95), side=40.0, rng=np.random.default_rng(0))


@pytest.mark.parametrize("num_px", [135, 320])
def test_pixels_hold_the_areas_of_the_section(num_px: int) -> None:
    section = busy(0)
    coverage = rasterise(section, num_px)

    assert coverage.fibre.mean() == pytest.approx(section.fibre_fraction, rel=1e-3)
    assert coverage.void.mean() == pytest.approx(section.void_fraction, rel=1e-2)
    assert np.sum(coverage, axis=0).max() <= 1 + 1e-12


def test_a_section_is_periodic() -> None:
    section = busy(0)
    shift = np.array([8 * SIDE / 112, 30 * SIDE / 112])
    moved = Section(
        side=SIDE,
        fibres=section.fibres + np.array([*shift, 0]),
        voids=section.voids + np.array([*shift, 0, 0, 0]),
        cracks=tuple(line + shift for line in section.cracks),
    )

    for one, other in zip(rasterise(section, 112), rasterise(moved, 112), strict=True):
        np.testing.assert_allclose(np.roll(one, (30, 8), axis=(0, 1)), other, atol=1e-9)


@pytest.mark.parametrize("num_px", [40, 400])
def test_a_crack_thinner_than_a_pixel_keeps_its_area(num_px: int) -> None:
    line = np.column_stack([np.full(21, 10.2), np.linspace(5, 15, 21)])
    section = Section(side=20.0, fibres=np.empty((0, 3)), voids=np.empty((0, 5)), cracks=(line,))
    area = rasterise(section, num_px).crack.sum() * (20.0 / num_px) ** 2

    assert area == pytest.approx(10 * CRACK_WIDTH_UM, rel=0.1)


def test_the_largest_defect_is_the_void_or_the_crack() -> None:
    void = np.array([[5.0, 5.0, 4.0, 2.0, 0.3]])
    crack = np.column_stack([np.full(11, 30.0), np.linspace(10, 20, 11)])
    alone = Section(side=40.0, fibres=np.empty((0, 3)), voids=void)
    both = Section(side=40.0, fibres=np.empty((0, 3)), voids=void, cracks=(crack,))

    assert largest_defect_um(alone) == pytest.approx(np.sqrt(8 * np.pi))
    assert largest_defect_um(both) == pytest.approx(np.sqrt(np.pi / 4 * 10**2))
    sound = Section(side=40.0, fibres=np.empty((0, 3)), voids=np.empty((0, 5)))
    assert largest_defect_um(sound) == 0.0


def test_large_defects_follow_murakami_and_none_reaches_the_sound_material() -> None:
    resistance = Resistance(toughness=0.3, defect_free_strength=80.0)
    large_um = 1e6
    murakami = 0.3 / (0.5 * np.sqrt(np.pi * large_um * 1e-6))

    assert transverse_strength(large_um, resistance) == pytest.approx(murakami, rel=1e-4)
    assert transverse_strength(0.0, resistance) == pytest.approx(80.0, rel=1e-12)
    strengths = [transverse_strength(size) for size in (0.0, 5.0, 10.0, 20.0, 30.0)]
    assert strengths == sorted(strengths, reverse=True)
    assert min(strengths) > 20.0
