from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from simulation.composites import Recipe, Section, random_section, rasterise
from simulation.laboratories import LABS, SIDE_UM, Laboratory
from simulation.microscopes import Microscope, micrograph, save

SECTION = random_section(
    Recipe(fibre_fraction=0.5, voids_um=(14.0,), cracks_um=(15.0,)),
    side=60.0,
    rng=np.random.default_rng(0),
)


def photograph(
    microscope: Microscope, seed: int = 1
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    return micrograph(SECTION, microscope, np.random.default_rng(seed))


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.name)
def test_every_microscope_shows_fibre_above_resin_above_void(lab: Laboratory) -> None:
    section = random_section(
        Recipe(fibre_fraction=0.45, voids_um=(20.0,)), side=SIDE_UM, rng=np.random.default_rng(2)
    )
    picture = micrograph(section, lab.microscope, np.random.default_rng(0))
    fibre, void, _ = rasterise(section, lab.microscope.num_px)
    fibres, resin = picture[fibre > 0.99].mean(), picture[(fibre + void) < 0.01].mean()

    assert fibres > 1.15 * resin > 2 * picture[void > 0.99].mean()


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.name)
def test_no_microscope_burns_out(lab: Laboratory) -> None:
    picture = micrograph(SECTION, lab.microscope, np.random.default_rng(0))

    assert (picture == 2**lab.microscope.bit_depth - 1).mean() < 0.02
    assert (picture == 0).mean() < 0.1


def test_the_same_seed_gives_the_same_picture() -> None:
    microscope = Microscope(num_px=120)

    np.testing.assert_array_equal(photograph(microscope), photograph(microscope))


def test_bit_depth_sets_type_and_range() -> None:
    deep = photograph(Microscope(num_px=120, bit_depth=16))
    shallow = photograph(Microscope(num_px=120))

    assert (deep.dtype.itemsize, shallow.dtype.itemsize) == (2, 1)
    np.testing.assert_allclose(deep / 65535, shallow / 255, atol=0.5 / 255 + 1e-5)


def test_a_ramp_leans_the_light_and_noise_roughens_it() -> None:
    bare = Section(side=60.0, fibres=np.empty((0, 3)), voids=np.empty((0, 5)))
    rng = np.random.default_rng

    def quarters(ramp: float) -> float:
        microscope = Microscope(num_px=100, noise=0.0, polish=0.0, ramp=ramp)
        picture = micrograph(bare, microscope, rng(3)).astype(float)
        corners = picture[:50, :50], picture[:50, 50:], picture[50:, :50], picture[50:, 50:]
        return float(np.ptp([corner.mean() for corner in corners]))

    assert quarters(0.4) > 5 * max(quarters(0.0), 1.0)
    quiet = micrograph(bare, Microscope(num_px=100, noise=0.0, polish=0.0), rng(3))
    noisy = micrograph(bare, Microscope(num_px=100, noise=0.05, polish=0.0), rng(3))
    assert noisy.std() > quiet.std() + 2


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_lossless_files_hold_the_picture(tmp_path: Path, suffix: str) -> None:
    picture = photograph(Microscope(num_px=120))
    path = tmp_path / f"one{suffix}"
    save(picture, path)

    read = tifffile.imread(path) if suffix == ".tif" else cv2.imread(str(path), -1)
    np.testing.assert_array_equal(read, picture)


def test_sixteen_bits_survive_a_tiff(tmp_path: Path) -> None:
    picture = photograph(Microscope(num_px=120, bit_depth=16))
    save(picture, tmp_path / "one.tif")

    np.testing.assert_array_equal(tifffile.imread(tmp_path / "one.tif"), picture)


def test_a_jpeg_is_close(tmp_path: Path) -> None:
    picture = photograph(Microscope(num_px=120))
    save(picture, tmp_path / "one.jpg")
    read = cv2.imread(str(tmp_path / "one.jpg"), cv2.IMREAD_GRAYSCALE)

    assert read is not None
    assert np.abs(read.astype(float) - picture).mean() < 3
