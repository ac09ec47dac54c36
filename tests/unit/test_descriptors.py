import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from client.descriptors import describe
from client.pooling import pool_descriptors
from common.descriptors import DESCRIPTORS
from common.errors import ConfigurationError
from common.units import check_unit
from simulation.composites import Recipe, random_section
from simulation.laboratories import LABS, SIDE_UM
from simulation.microscopes import micrograph

Array = npt.NDArray[Any]

NAMES = list(DESCRIPTORS)
GUIDE = Path(__file__).parents[2] / "docs" / "descriptors.md"
RESIN, FIBRE, VOID = 0.4, 0.7, 0.08


def noisy(grey: Array, sigma: float = 0.01, blur: float = 0.7) -> Array:
    """What a microscope makes of a drawing: blur and noise."""
    soft = cv2.GaussianBlur(np.asarray(grey, dtype=np.float32), (0, 0), blur)
    noise = np.random.default_rng(0).normal(0, sigma, soft.shape)
    return np.asarray(np.clip(soft + noise, 0, 1), dtype=np.float32)


def discs(centres: list[tuple[float, float]], radius: float, size: tuple[int, int]) -> Array:
    """1 inside the discs, 0 outside."""
    y, x = np.mgrid[: size[0], : size[1]]
    distances = [np.hypot(x - at_x, y - at_y) for at_x, at_y in centres]
    return np.asarray(np.min(distances, axis=0) < radius)


def lattice(*, with_void: bool = False) -> Array:
    """12 x 12 fibres 20 px thick, 24 px apart, on 288 x 288 px; one void 60 px wide or none."""
    at = 11.5 + 24 * np.arange(12)
    centres = [(float(x), float(y)) for x in at for y in at]
    grey = np.where(discs(centres, 10, (288, 288)), FIBRE, RESIN)
    if with_void:
        near = discs([(144, 144)], 40, grey.shape)
        grey = np.where(near, RESIN, grey)
        grey = np.where(discs([(144, 144)], 30, grey.shape), VOID, grey)
    return noisy(grey)


def described(grey: Array, names: Sequence[str], um_per_px: float | None) -> Array:
    """Of a specimen with one micrograph."""
    values = describe(grey, names, um_per_px)[None]
    return pool_descriptors(values, names, has_scale=um_per_px is not None)


def measure(grey: Array, *names: str, um_per_px: float | None = None) -> dict[str, float]:
    return dict(zip(names, described(grey, names, um_per_px).tolist(), strict=True))


def named(group: str) -> list[str]:
    return [name for name, descriptor in DESCRIPTORS.items() if descriptor.group == group]


def photograph(lab: int, recipe: Recipe, seed: int = 0) -> tuple[Array, float]:
    rng = np.random.default_rng(seed)
    microscope = LABS[lab].microscope
    levels = micrograph(random_section(recipe, side=SIDE_UM, rng=rng), microscope, rng)
    grey = levels / np.float32(2**microscope.bit_depth - 1)
    return np.asarray(grey, dtype=np.float32), microscope.um_per_px(SIDE_UM)


@pytest.mark.parametrize("name", NAMES)
def test_units_are_known_and_typical_values_are_numbers(name: str) -> None:
    descriptor = DESCRIPTORS[name]

    check_unit(descriptor.unit(has_scale=True))
    for has_scale in (True, False):
        assert math.isfinite(descriptor.shift(has_scale=has_scale))
        assert math.isfinite(descriptor.absence(has_scale=has_scale))
    assert len(descriptor.summary) < 90 and "\n" not in descriptor.summary


def test_the_guide_lists_the_table() -> None:
    rows = [line for line in GUIDE.read_text(encoding="utf-8").splitlines() if line[:3] == "| `"]

    assert rows == [
        f"| `{name}` | {it.unit(has_scale=True)} | {it.unit(has_scale=False)} "
        f"| {it.absence(has_scale=True):g} | {it.summary} | {it.reference} |"
        for name, it in DESCRIPTORS.items()
    ]


def test_a_lattice_of_fibres() -> None:
    found = measure(lattice(), *named("fibres"), um_per_px=0.5)

    assert found["fibre_area_fraction"] == pytest.approx(np.pi * 10**2 / 24**2, abs=0.015)
    assert found["fibre_count_per_mm2"] == pytest.approx(1e6 / 12**2, rel=0.1)
    assert found["fibre_diameter_um"] == pytest.approx(10.0, rel=0.05)
    assert found["fibre_spacing_ratio"] == pytest.approx(1.2, rel=0.05)
    assert found["fibre_spacing_variation"] < 0.03
    assert found["fibre_fraction_variation"] < 0.08


def test_a_void_in_the_lattice() -> None:
    found = measure(lattice(with_void=True), *named("voids"), um_per_px=0.5)

    assert found["void_area_fraction"] == pytest.approx(np.pi * 30**2 / 288**2, rel=0.03)
    assert found["void_count_per_mm2"] == pytest.approx(1e6 / 144**2)
    assert found["void_median_diameter_um"] == pytest.approx(30.0, rel=0.02)
    assert found["void_largest_diameter_um"] == found["void_median_diameter_um"]


def test_a_void_that_two_borders_cut_is_counted_once() -> None:
    grey = np.roll(np.where(discs([(64, 64)], 20, (128, 128)), VOID, RESIN), 64, axis=1)
    found = measure(noisy(grey), "void_count_per_mm2", "void_area_fraction")

    assert found["void_count_per_mm2"] == pytest.approx(1e6 / 128**2)
    assert found["void_area_fraction"] == pytest.approx(np.pi * 20**2 / 128**2, rel=0.05)


def test_a_pocket_without_fibres_is_rich_in_resin() -> None:
    at = 12 + 24 * np.arange(12)
    centres = [(float(x), float(y)) for x in at for y in at if max(abs(x - 144), abs(y - 144)) > 50]
    grey = noisy(np.where(discs(centres, 10, (288, 288)), FIBRE, RESIN))
    found = measure(grey, "resin_rich_area_fraction", "resin_pocket_largest_um")
    full = measure(lattice(), "resin_rich_area_fraction", "resin_pocket_largest_um")

    # 4 x 4 fibres of the lattice are left out: 100 px from fibre to fibre, in the clear
    assert found["resin_rich_area_fraction"] == pytest.approx(100**2 / 288**2, rel=0.1)
    assert found["resin_pocket_largest_um"] == pytest.approx(math.sqrt(4 / np.pi) * 100, rel=0.1)
    assert full == {"resin_rich_area_fraction": 0.0, "resin_pocket_largest_um": 0.0}


def test_the_mean_chord_of_the_resin_is_its_area_over_the_fibres_height() -> None:
    # a fibre ends one chord of the resin in each of the 20 rows that it crosses
    chord = measure(lattice(), "matrix_chord_length_um")["matrix_chord_length_um"]
    resin = 24**2 - np.pi * 10**2

    assert chord == pytest.approx(resin / 20, rel=0.05)


@pytest.mark.parametrize("angle", [0, 20, 45, 90, 135, 170])
def test_stripes_have_their_angle(angle: float) -> None:
    y, x = np.mgrid[:160, :160]
    turn = np.radians(angle)
    stripes = 0.5 + 0.3 * np.sin((x * np.sin(turn) + y * np.cos(turn)) / 2)
    found = measure(
        noisy(stripes),
        "orientation_cos2",
        "orientation_sin2",
        "orientation_order",
        "orientation_spread_deg",
        "coherency",
    )

    direction = np.degrees(np.arctan2(found["orientation_sin2"], found["orientation_cos2"])) / 2
    assert (direction - angle + 90) % 180 - 90 == pytest.approx(0, abs=0.5)
    assert found["orientation_order"] > 0.99
    assert found["coherency"] > 0.95
    assert found["orientation_spread_deg"] < 5


def test_two_halves_at_right_angles_have_no_order() -> None:
    wave = 0.5 + 0.3 * np.sin(np.arange(160) / 2)
    half = np.tile(wave[:80], (160, 1))
    found = measure(
        noisy(np.concatenate([half, np.tile(wave[:, None], (1, 80))], axis=1)),
        "orientation_order",
        "orientation_spread_deg",
    )

    assert found["orientation_order"] < 0.05
    assert found["orientation_spread_deg"] > 40


def test_a_crack_has_its_length_and_is_one() -> None:
    # 200 px long and 3 px wide, along a line that falls by 3 in 4
    y, x = np.mgrid[:240, :240] - 120
    along, across = 0.8 * x + 0.6 * y, 0.8 * y - 0.6 * x
    grey = np.where((np.abs(along) < 100) & (np.abs(across) < 1.5), VOID, RESIN)
    found = measure(
        noisy(grey), "crack_length_density", "crack_count_per_mm2", "void_count_per_mm2",
        um_per_px=0.5,
    )  # fmt: skip

    # 200 px are 100 µm, and 240 px are 120 µm
    assert found["crack_length_density"] == pytest.approx(1e3 * 100 / 120**2, rel=0.07)
    assert found["crack_count_per_mm2"] == pytest.approx(1e6 / 120**2)
    assert found["void_count_per_mm2"] == 0


@pytest.mark.parametrize("lab", range(len(LABS)))
def test_a_section_without_cracks_has_none_and_its_voids_and_fibres_are_right(lab: int) -> None:
    recipe = Recipe(fibre_fraction=0.5, voids_um=(16.0, 9.0), pockets_um=(20.0,))
    grey, um_per_px = photograph(lab, recipe)
    found = measure(
        grey,
        "crack_length_density",
        "fibre_area_fraction",
        "fibre_diameter_um",
        "void_area_fraction",
        um_per_px=um_per_px,
    )

    assert found["crack_length_density"] == 0
    assert found["fibre_area_fraction"] == pytest.approx(0.5, abs=0.025)
    assert found["fibre_diameter_um"] == pytest.approx(7.0, abs=0.3)
    drawn = np.pi / 4 * (16**2 + 9**2) / SIDE_UM**2
    assert found["void_area_fraction"] == pytest.approx(drawn, abs=0.004)


def test_a_ramp_of_light_changes_nothing() -> None:
    even = lattice(with_void=True)
    ramp = np.linspace(0.8, 1.2, even.shape[1], dtype=np.float32)
    names = ["fibre_area_fraction", "void_area_fraction", "fibre_diameter_um", "glcm_correlation"]
    before, after = (described(grey, names, None) for grey in (even, even * ramp))

    np.testing.assert_allclose(after, before, rtol=0.02)


def test_contrast_and_brightness_do_not_count() -> None:
    even = lattice(with_void=True)
    names = [name for name in NAMES if DESCRIPTORS[name].group != "quality"]
    before, after = (described(grey, names, None) for grey in (even, 0.8 * even))

    np.testing.assert_allclose(after, before, rtol=0.05, atol=0.02)


def test_smooth_noise_has_its_correlation_length() -> None:
    white = np.random.default_rng(0).standard_normal((384, 384))
    field = cv2.GaussianBlur(white, (0, 0), 5.0)
    grey = np.asarray(0.5 + 0.1 * field / field.std(), dtype=np.float32)
    found = measure(grey, "correlation_length_um", "glcm_correlation", um_per_px=0.1)

    assert found["correlation_length_um"] == pytest.approx(1.0, rel=0.1)  # 2 x 5 px
    assert found["glcm_correlation"] == pytest.approx(np.exp(-1.5 / 100), abs=0.01)


def test_two_equally_frequent_greys_are_one_bit_and_do_not_look_alike() -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2
    found = measure(
        np.asarray(0.3 + 0.4 * board, dtype=np.float32),
        "grey_entropy",
        "glcm_contrast",
        "glcm_homogeneity",
        "glcm_correlation",
    )

    # neighbours in a row or column differ by all 31 levels, diagonal ones by none
    assert found["grey_entropy"] == pytest.approx(1.0, abs=0.01)
    assert found["glcm_contrast"] == pytest.approx(31**2 / 2, rel=0.01)
    assert found["glcm_homogeneity"] == pytest.approx((1 + 1 / (1 + 31**2)) / 2, rel=0.01)
    assert found["glcm_correlation"] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("kind", ["lines", "steps"])
def test_square_grains_have_their_intercept(kind: str) -> None:
    grey = np.full((240, 240), 0.6)
    if kind == "lines":
        grey[15::30] = grey[:, 15::30] = 0.2
    else:
        board = (np.indices((240, 240)) + 15) // 30
        grey = 0.3 + 0.4 * (board.sum(axis=0) % 2)
    found = measure(noisy(grey), "grain_intercept_um", um_per_px=2.0)

    assert found["grain_intercept_um"] == pytest.approx(60.0, rel=0.07)


@pytest.mark.parametrize("sigma", [0.01, 0.03])
def test_noise_is_what_was_added(sigma: float) -> None:
    found = measure(noisy(lattice(), sigma, blur=1.5), "noise")

    assert found["noise"] == pytest.approx(sigma, rel=0.06)


def test_focus_falls_with_blur() -> None:
    values = [measure(noisy(lattice(), blur=blur), "focus")["focus"] for blur in (0.5, 1, 2, 4)]

    assert values == sorted(values, reverse=True)


def test_the_scale_multiplies_lengths_and_divides_densities() -> None:
    grey = lattice(with_void=True)
    in_px, in_um = described(grey, NAMES, None), described(grey, NAMES, 0.25)

    for name, pixels, physical in zip(NAMES, in_px.tolist(), in_um.tolist(), strict=True):
        quantity = DESCRIPTORS[name].quantity
        factor = 0.25**quantity.power * quantity.factor / quantity.pixel_factor
        assert physical == pytest.approx(pixels * factor, rel=1e-12), name


def test_a_value_does_not_depend_on_the_others_asked_for() -> None:
    grey, um_per_px = photograph(
        4, Recipe(fibre_fraction=0.45, voids_um=(12.0,), cracks_um=(15.0,))
    )
    together = described(grey, NAMES, um_per_px)
    reversed_ = described(grey, NAMES[::-1], um_per_px)[::-1]
    alone = np.concatenate([described(grey, [name], um_per_px) for name in NAMES])

    np.testing.assert_array_equal(reversed_, together)
    np.testing.assert_array_equal(alone, together)
    np.testing.assert_array_equal(described(grey.astype(np.float64), NAMES, um_per_px), together)


BLANKS: dict[str, Callable[[tuple[int, int]], Array]] = {
    "black": np.zeros,
    "white": np.ones,
    "grey": lambda size: np.full(size, 0.5),
    "noise": lambda size: np.random.default_rng(0).random(size),
    "one pixel": lambda size: np.eye(*size) * np.eye(size[0], 1),
    "two halves": lambda size: np.tile(np.arange(size[1]) < size[1] // 3, (size[0], 1)),
    "hardly any": lambda size: 0.5 + 1e-7 * np.random.default_rng(0).random(size),
}


@pytest.mark.parametrize("size", [(16, 16), (32, 32), (33, 70), (140, 129)])
@pytest.mark.parametrize("kind", BLANKS)
def test_every_value_is_finite(kind: str, size: tuple[int, int]) -> None:
    grey = np.asarray(BLANKS[kind](size), dtype=np.float32)

    for um_per_px in (None, 0.3):
        values = described(grey, NAMES, um_per_px)
        assert values.shape == (len(NAMES),)
        assert np.isfinite(values).all()


def test_nothing_is_found_in_a_blank_image() -> None:
    found = measure(np.full((64, 64), 0.5, dtype=np.float32), *NAMES)

    for name in ("fibre_area_fraction", "void_count_per_mm2", "crack_length_density", "noise"):
        assert found[name] == 0
    for name in ("fibre_diameter_um", "correlation_length_um"):
        assert found[name] == DESCRIPTORS[name].shift(has_scale=False)


def test_pure_noise_has_neither_fibres_nor_cracks_nor_voids() -> None:
    noise = np.random.default_rng(1).normal(0.5, 0.03, (256, 256)).astype(np.float32)
    found = measure(noise, "fibre_area_fraction", "crack_length_density", "void_area_fraction")

    assert set(found.values()) == {0.0}


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'porosity'.*void_area_fraction"):
        described(lattice(), ["noise", "porosity"], None)


def test_micrographs_without_the_thing_do_not_count_in_its_mean() -> None:
    # one void 60 px wide, none, none: the diameter is of the one; shares and counts are of all
    names = ["void_largest_diameter_um", "void_count_per_mm2", "fibre_diameter_um"]
    blank = np.full((288, 288), 0.5, dtype=np.float32)
    pictures = [lattice(with_void=True), lattice(), blank]
    values = np.stack([describe(grey, names, 0.5) for grey in pictures])
    pooled = pool_descriptors(values, names, has_scale=True)

    assert np.isnan(values).tolist() == [
        [False, False, False],
        [True, False, False],
        [True, False, True],
    ]
    assert pooled[0] == values[0, 0] == pytest.approx(30.0, rel=0.02)
    assert pooled[1] == pytest.approx(1e6 / 144**2 / 3)
    assert pooled[2] == pytest.approx(10.0, rel=0.05)


def test_what_no_micrograph_shows_is_absent_in_its_unit() -> None:
    names = ["void_largest_diameter_um", "fibre_diameter_um", "noise"]
    values = np.array([[np.nan, np.nan, 0.01], [np.nan, np.nan, 0.03]])

    assert pool_descriptors(values, names, has_scale=True).tolist() == [0.0, 7.0, 0.02]
    assert pool_descriptors(values, names, has_scale=False).tolist() == [0.0, 25.0, 0.02]
