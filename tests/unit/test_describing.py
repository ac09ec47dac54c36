"""The pixels that descriptors are measured on: square, and at the federation's scale."""

from typing import Any

import numpy as np
import pytest

from client.describing import describe_micrograph, described_size
from client.findings import RefusedError
from common.federation import Imaging

PIXELS = Imaging(scale="pixels", tile_px=32)
PHYSICAL = Imaging(scale="physical", um_per_px=1.0, tile_px=32)
NAMES = ("orientation_cos2", "orientation_sin2", "correlation_length_um")


def stripes(across: float, down: float) -> np.ndarray:
    """80 x 80 µm with stripes that rise by 45°, in pixels of some size in µm."""
    y, x = np.mgrid[0:80:down, 0:80:across]
    return np.asarray(0.5 + 0.3 * np.sin((x + y) / 3), dtype=np.float32)


@pytest.mark.parametrize("imaging", [PIXELS, PHYSICAL, Imaging(scale="fit", tile_px=32)])
@pytest.mark.parametrize("um_per_px", [(0.5, 1.0), (1.0, 0.5)])
def test_pixels_that_are_not_square_are_made_so(
    imaging: Imaging, um_per_px: tuple[float, float]
) -> None:
    grey = stripes(*um_per_px)
    assert sorted(grey.shape) == [80, 160]
    cos, sin, length = describe_micrograph(grey, um_per_px, imaging, NAMES)
    assert (cos, sin) == pytest.approx((0.0, 1.0), abs=0.02)
    assert length == pytest.approx(
        describe_micrograph(stripes(1.0, 1.0), 1.0, imaging, NAMES)[2], rel=0.02
    )


def test_square_pixels_are_left_alone() -> None:
    assert described_size(50, 70, (0.3, 0.3), PIXELS) == (50, 70)
    assert described_size(50, 70, 0.3, PIXELS) == (50, 70)
    assert described_size(50, 70, None, PIXELS) == (50, 70)
    assert described_size(50, 70, 2.0, PHYSICAL) == (100, 140)


@pytest.mark.parametrize(("shape", "um_per_px"), [((15, 60), None), ((30, 60), (2.0, 1.0))])
def test_what_is_too_small_to_describe_is_refused(shape: tuple[int, int], um_per_px: Any) -> None:
    with pytest.raises(RefusedError, match=r"a side under 16 px, .*; take a larger"):
        described_size(*shape, um_per_px, PIXELS)


def test_the_check_refuses_what_extraction_would(lab: Any) -> None:
    lab.federation["imaging"] = {"scale": "fit", "tile_px": 32}
    lab.write_image("S05.png", np.random.default_rng(0).integers(1, 255, (12, 40), dtype=np.uint8))
    lab.write()
    assert not lab.stops()
    lab.federation["descriptors"] = {"names": ["noise"]}
    lab.write()
    (stop,) = lab.stops()
    assert stop.file == "images/S05.png"
    assert stop.found == "has a side under 16 px, too short to be described"
    dataset, _ = lab.check(decode=False)
    assert dataset is None
