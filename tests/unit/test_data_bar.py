"""Data bars as FEI, Zeiss and JEOL draw them are found; ordinary micrographs have none."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from client.micrographs import inspect_micrograph
from client.reading.data_bar import find_data_bar
from client.settings import Data
from simulation.composites import Recipe, random_section
from simulation.laboratories import LABS, SIDE_UM, Laboratory
from simulation.microscopes import micrograph

DATA = Data(table="t.csv", images=".", specimen="id", image="{id}.png")
WIDTH = 1024


def write(bar: np.ndarray, text: str, x: float, y: int, grey: int) -> None:
    at = (round(x * WIDTH), y)
    cv2.putText(bar, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, grey, 1, cv2.LINE_AA)


def fei() -> np.ndarray:
    """White on black, a white frame, fields with a line between them, and a scale bar."""
    bar = np.zeros((60, WIDTH), np.uint8)
    bar[0] = 255
    for i, (name, value) in enumerate(
        [("HV", "20.00 kV"), ("mag", "5 000 x"), ("det", "ETD"), ("WD", "10.1 mm"), ("spot", "3")]
    ):
        bar[:, round(i * 0.14 * WIDTH)] = 255
        write(bar, name, i * 0.14 + 0.02, 22, 255)
        write(bar, value, i * 0.14 + 0.02, 48, 255)
    bar[25:28, 800:950] = 255
    write(bar, "10 um", 0.82, 20, 255)
    return bar


def zeiss() -> np.ndarray:
    """Black on white."""
    bar = np.full((80, WIDTH), 255, np.uint8)
    write(bar, "2 um", 0.03, 30, 0)
    bar[40:44, 20:140] = 0
    for x, text in ((0.3, "EHT = 15.00 kV"), (0.5, "WD =  8.5 mm"), (0.7, "Mag = 5.00 K X")):
        write(bar, text, x, 30, 0)
        write(bar, "Signal A = SE2", x, 60, 0)
    return bar


def jeol() -> np.ndarray:
    """One line in white on black."""
    bar = np.zeros((64, WIDTH), np.uint8)
    write(bar, "SEI   15kV   WD10mm   SS40     x1,000    10um", 0.05, 38, 255)
    bar[48:52, 700:850] = 255
    return bar


def picture(seed: int = 0, height: int = 700) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(height, WIDTH)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.clip(120 + 500 * smooth, 2, 253).astype(np.uint8)


BARS = pytest.mark.parametrize("bar", [fei, zeiss, jeol])


@BARS
def test_where_a_bar_begins(bar: Callable[[], np.ndarray]) -> None:
    whole = np.vstack([picture(), bar()])
    assert find_data_bar(whole) == 700
    assert find_data_bar(whole.astype(np.uint16) * 16) == 700
    assert find_data_bar(whole / np.float32(255) - 3) == 700
    assert find_data_bar(255 - whole) == 700


@BARS
@pytest.mark.parametrize("quality", [60, 90])
def test_a_bar_stored_as_jpeg(bar: Callable[[], np.ndarray], quality: int) -> None:
    encoded = cv2.imencode(
        ".jpg", np.vstack([picture(), bar()]), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )[1]
    found = find_data_bar(np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)))
    assert found is not None and abs(found - 700) <= 2


@BARS
def test_no_bar_is_left_once_it_is_cut_off(bar: Callable[[], np.ndarray]) -> None:
    whole = np.vstack([picture(), bar()])
    assert find_data_bar(whole[:700]) is None
    # nor is one seen in a bar at the top, or at the side
    assert find_data_bar(whole[::-1]) is None
    assert find_data_bar(np.rot90(whole)) is None


def a_black_mount(bottom: np.ndarray) -> None:
    bottom[:] = 0


def letters_on_the_picture(bottom: np.ndarray) -> None:
    write(bottom, "HV 20 kV mag 5000 x det ETD", 0.1, 30, 255)


def a_box_with_a_scale_bar(bottom: np.ndarray) -> None:
    bottom[:, 700:] = 255
    write(bottom, "10 um", 0.8, 30, 0)


def pores(bottom: np.ndarray) -> None:
    bottom[bottom < 120] = 0


@pytest.mark.parametrize(
    "change", [a_black_mount, letters_on_the_picture, a_box_with_a_scale_bar, pores]
)
def test_what_is_no_bar(change: Callable[[np.ndarray], None]) -> None:
    image = picture(1)
    change(image[-60:])
    assert find_data_bar(image) is None


def test_bright_particles_on_black_ground_are_no_letters() -> None:
    image = np.zeros((700, WIDTH), np.uint8)
    rng = np.random.default_rng(2)
    for x, y, radius in rng.integers((0, 0, 2), (WIDTH, 700, 12), (1500, 3)).tolist():
        cv2.circle(image, (x, y), radius, 255, -1, cv2.LINE_AA)
    assert find_data_bar(image) is None
    # not even below a sharp edge, where a bright layer ends
    image[:600] = picture(3, 600)
    soft = cv2.GaussianBlur(image, (0, 0), 4)
    soft[:600] = image[:600]
    assert find_data_bar(soft) is None


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.name)
def test_the_simulated_microscopes_draw_none(lab: Laboratory) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        recipe = Recipe(fibre_fraction=0.45, voids_um=(20.0,))
        section = random_section(recipe, side=SIDE_UM, rng=rng)
        assert find_data_bar(micrograph(section, lab.microscope, rng)) is None


@pytest.mark.parametrize("name", ["literature_steel_hardness", "lpbf_surface_ra"])
def test_published_micrographs_without_one(shared_data: Path, name: str) -> None:
    paths = sorted((shared_data / name / "images").iterdir())
    assert len(paths) >= 19
    assert [path.name for path in paths if inspect_micrograph(path, DATA).bar_begins] == []
