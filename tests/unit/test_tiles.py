from math import ceil

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import tiles
from client.settings import UmPerPx
from common.errors import LabDataError
from common.federation import Imaging


@given(height=st.integers(64, 600), width=st.integers(64, 600), max_tiles=st.integers(1, 40))
def test_tiles_cover_every_pixel(height: int, width: int, max_tiles: int) -> None:
    imaging = Imaging(scale="pixels", tile_px=64, max_tiles=max_tiles)
    needed = ceil(height / 64) * ceil(width / 64)
    try:
        plan = tiles.plan(height, width, None, imaging)
    except LabDataError as error:
        assert "too long and narrow" in str(error) and needed > max_tiles
        return
    seen = np.zeros((plan.height, plan.width), dtype=bool)
    for row in plan.rows:
        for column in plan.columns:
            assert row + 64 <= plan.height and column + 64 <= plan.width
            seen[row : row + 64, column : column + 64] = True
    assert seen.all()
    assert len(plan.rows) * len(plan.columns) <= max_tiles


def test_pixels_shrinks_by_the_smallest_whole_number() -> None:
    plan = tiles.plan(1536, 2048, None, Imaging(scale="pixels", max_tiles=32))
    assert (plan.height, plan.width) == (768, 1024)


def test_fit_is_one_tile() -> None:
    plan = tiles.plan(28, 28, None, Imaging(scale="fit", tile_px=224))
    assert (plan.rows, plan.columns, plan.height) == ((0,), (0,), 224)


def test_physical_halves_what_is_twice_as_fine() -> None:
    imaging = Imaging(scale="physical", um_per_px=0.5, tile_px=100)
    plan = tiles.plan(400, 600, 0.25, imaging)
    image = np.kron(np.random.default_rng(0).random((200, 300)), np.ones((2, 2)))
    cut = tiles.cut(image.astype(np.float32), plan)
    assert cut.shape == (6, 100, 100)
    np.testing.assert_allclose(cut[0], image[:200:2, :200:2], atol=1e-6)


def test_a_pair_resamples_each_axis_by_its_own_factor() -> None:
    imaging = Imaging(scale="physical", um_per_px=0.5, tile_px=100)
    assert tiles.plan(400, 600, (0.25, 0.5), imaging).columns == (0, 100, 200)
    plan = tiles.plan(400, 600, (0.25, 1.0), imaging)
    assert (plan.height, plan.width) == (800, 300)


def test_one_axis_shrinks_by_area_while_the_other_grows() -> None:
    columns = np.tile(np.array([0.0, 0.5, 1.0, 0.5], dtype=np.float32), (40, 16))
    resampled = tiles.resample(columns, 80, 32)
    # pairs of columns are averaged; rows are alike, and stay so
    np.testing.assert_allclose(resampled, np.tile([0.25, 0.75], (80, 16)), atol=1e-6)


@pytest.mark.parametrize("pair", [(0.25, 0.5), (1.0, 2.0)])
def test_pixels_first_makes_them_square_by_shrinking_the_finer_axis(
    pair: tuple[float, float],
) -> None:
    plan = tiles.plan(400, 1000, pair, Imaging(scale="pixels", tile_px=100))
    assert (plan.height, plan.width) == (400, 500)
    assert len(plan.rows) * len(plan.columns) == 20
    turned = tiles.plan(1000, 400, pair[::-1], Imaging(scale="pixels", tile_px=100))
    assert (turned.height, turned.width) == (500, 400)
    with pytest.raises(LabDataError, match="less than one tile"):
        tiles.plan(400, 190, pair, Imaging(scale="pixels", tile_px=100))


def test_fit_does_not_ask_for_the_shape_of_pixels() -> None:
    imaging = Imaging(scale="fit", tile_px=32)
    assert tiles.plan(28, 28, (0.25, 0.5), imaging) == tiles.plan(28, 28, None, imaging)


def test_shrinking_averages_over_area() -> None:
    checkers = (np.indices((64, 64)).sum(axis=0) % 2).astype(np.float32)
    np.testing.assert_allclose(tiles.resample(checkers, 32, 32), 0.5, atol=1e-6)


def test_enlarging_stays_between_black_and_white() -> None:
    edge = np.zeros((32, 32), dtype=np.float32)
    edge[:, 16:] = 1.0
    large = tiles.resample(edge, 100, 100)
    assert large.min() == 0.0 and large.max() == 1.0
    grey = np.random.default_rng(0).uniform(0.3, 0.6, (32, 32)).astype(np.float32)
    kernel = cv2.resize(grey, (100, 100), interpolation=cv2.INTER_LANCZOS4)
    np.testing.assert_allclose(tiles.resample(grey, 100, 100), np.clip(kernel, 0, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("height", "um_per_px", "message"),
    [
        (400, None, "the scale is unknown"),
        (50, 0.5, "less than one tile of 100 px"),
        (5000, 0.5, "need 2500 tiles, and the federation allows 32"),
    ],
)
def test_what_cannot_be_tiled_says_why(height: int, um_per_px: float | None, message: str) -> None:
    imaging = Imaging(scale="physical", um_per_px=0.5, tile_px=100)
    with pytest.raises(LabDataError, match=message):
        tiles.plan(height, height, um_per_px, imaging)


@pytest.mark.parametrize("scale", [1e308, 1e-20, (0.5, 1e9)])
def test_a_scale_that_no_microscope_has_is_refused(scale: UmPerPx) -> None:
    imaging = Imaging(scale="physical", um_per_px=0.5, tile_px=32)
    with pytest.raises(LabDataError, match="is no microscope's scale"):
        tiles.plan(100, 100, scale, imaging)
