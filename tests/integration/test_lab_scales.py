"""Scales and data bars of a whole lab: what `crossply lab check` says of real files."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

from client.findings import Finding, Level
from client.micrographs import read_micrograph

# tests/conftest.py has no name that could be imported; `lab` is its LabFolder
Lab = Any

PHYSICAL = {"scale": "physical", "um_per_px": 0.25, "tile_px": 32, "max_tiles": 100}


def texture(seed: int, height: int = 96, width: int = 160) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 255, (height, width), dtype=np.uint8)


def with_bar(pixels: np.ndarray, rows: int = 16) -> np.ndarray:
    """Draw a data bar over the lowest rows."""
    bar = np.zeros((rows, pixels.shape[1]), np.uint8)
    cv2.putText(bar, "HV 20kV 10um", (6, rows - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 255)
    return np.vstack([pixels[:-rows], bar])


def zeiss(nm: float) -> list[tuple[int, int, int, bytes, bool]]:
    text = (
        "\r\n0\r\nSV_USER_NAME\r\nUser Name = KIM\r\n"
        f"AP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = {nm} nm\r\n"
    )
    return [(34118, 2, 0, text.encode(), True)]


def use_tiffs(lab: Lab, **data: Any) -> None:
    """Replace the lab's images by those of a Zeiss microscope at 250 nm per px."""
    for i in range(1, 25):
        (lab.images / f"S{i:02}.png").unlink()
        write_tiff(lab, i, 250)
    lab.settings["data"] |= {"image": "{id}.*", **data}
    lab.federation["imaging"] = PHYSICAL
    lab.write()


def write_tiff(lab: Lab, number: int, nm: float, **options: Any) -> None:
    options = {"extratags": zeiss(nm), **options}
    tifffile.imwrite(lab.images / f"S{number:02}.tif", texture(number), metadata=None, **options)


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, [finding.sentence() for finding in findings]
    return findings[0]


# --- the images' own records -------------------------------------------------------------------


def test_the_scales_found_are_told(lab: Lab) -> None:
    use_tiffs(lab, um_per_px="metadata")
    write_tiff(lab, 7, 300)
    dataset, findings = lab.check()
    assert dataset is not None
    told = [finding.found for finding in findings if "records" in finding.found]
    assert told == ["scale from the instruments' own records: 0.25 to 0.3 µm per px"]
    assert {finding.level for finding in findings} == {Level.PASS}
    assert [group[0].um_per_px for group in dataset.micrographs[5:7]] == pytest.approx([0.25, 0.3])
    everything = repr(dataset) + "".join(finding.sentence() for finding in findings)
    assert "KIM" not in everything


def test_each_image_without_a_record_is_refused(lab: Lab) -> None:
    use_tiffs(lab, um_per_px="metadata")
    write_tiff(lab, 3, 250, extratags=[])
    (lab.images / "S05.tif").unlink()
    lab.write_image("S05.png", texture(5))
    write_tiff(lab, 9, 0)
    stops = lab.stops()
    assert [stop.file for stop in stops] == ["images/S03.tif", "images/S05.png", "images/S09.tif"]
    assert [stop.found for stop in stops] == [
        "has no record of its scale by FEI or Thermo, Zeiss, ImageJ or OME",
        'um_per_px = "metadata" is declared, and a PNG file has no scale',
        "its Zeiss record has 0 µm per px, which cannot be right",
    ]
    assert all("write numbers or a column for um_per_px" in stop.action for stop in stops)


@pytest.mark.parametrize("header", ["metadata", "metadata (um)"])
def test_the_word_is_no_name_of_a_column(lab: Lab, header: str) -> None:
    use_tiffs(lab)
    lab.add_column(header, ["0.25"] * 24)
    lab.settings["data"]["um_per_px"] = 0.25
    lab.write()
    assert lab.stops() == []
    lab.settings["data"]["um_per_px"] = "metadata"
    lab.write()
    stop = only(lab.stops())
    assert (stop.file, stop.row, stop.column) == ("tests.csv", 1, header)
    assert "rename the column here" in stop.action


# --- pixels that are not square ----------------------------------------------------------------


def test_pixels_that_are_not_square_are_refused_until_declared(lab: Lab) -> None:
    use_tiffs(lab, um_per_px=0.25)
    write_tiff(lab, 4, 250, resolution=(400, 200))
    stop = only(lab.stops())
    assert stop.file == "images/S04.tif"
    assert "400 px across and 200 px down to one length: its pixels are not square" in stop.found
    assert "write um_per_px = [0.25, 0.5] under [data] in lab.toml" in stop.action
    lab.settings["data"]["um_per_px"] = [0.25, 0.5]
    lab.write()
    assert lab.fixes() == []
    dataset, _ = lab.check()
    assert dataset is not None and dataset.micrographs[3][0].um_per_px == (0.25, 0.5)


# --- the data bar ------------------------------------------------------------------------------


def test_one_data_bar_is_shown_with_what_to_write(lab: Lab) -> None:
    lab.write_image("S03.png", with_bar(texture(3)))
    fix = only(lab.fixes())
    assert fix.file == "images/S03.png"
    assert fix.found == "rows 81 to 96 of 96 look like an instrument's data bar"
    # 16 of 96 rows are 0.1667
    assert fix.action.startswith("write crop_bottom = 0.167 under [data] in lab.toml")


def test_many_data_bars_are_one_finding_and_gone_once_cut(lab: Lab) -> None:
    for i in range(1, 25):
        lab.write_image(f"S{i:02}.png", with_bar(texture(i), 16 if i < 20 else 15))
    fix = only(lab.fixes())
    assert fix.file == "images"
    assert fix.found == (
        "24 of 24 micrographs, such as S01.png: rows 81 to 96 of 96 look like an instrument's "
        "data bar"
    )
    lab.settings["data"]["crop_bottom"] = 0.157
    lab.write_toml()
    assert only(lab.fixes()).found.startswith("19 of 24 micrographs")
    lab.settings["data"]["crop_bottom"] = 0.167
    lab.write_toml()
    assert lab.fixes() == []


def test_what_is_cut_off_counts_for_nothing(lab: Lab) -> None:
    # 48 rows less 0.3 of them are 34, less 0.34 are 32, less 0.36 are 31
    for share, stops in ((0.3, 0), (0.34, 0), (0.36, 24)):
        lab.settings["data"]["crop_bottom"] = share
        lab.write_toml()
        found = lab.stops()
        assert len(found) == stops
        assert all("less than one tile of 32 px" in stop.found for stop in found)
    lab.settings["data"]["crop_bottom"] = 0.34
    lab.write_toml()
    white = texture(1, 48, 64)
    white[32:] = 255
    lab.write_image("S01.png", white)
    assert lab.fixes() == []
    dataset, _ = lab.check(decode=False)
    assert dataset is not None
    pixels = read_micrograph(lab.images / "S01.png", dataset.settings.data)
    np.testing.assert_allclose(pixels, white[:32] / 255, atol=1e-6)


def test_fewer_tiles_are_needed_below_a_cut(lab: Lab) -> None:
    lab.federation["imaging"] = {**PHYSICAL, "max_tiles": 2}
    lab.settings["data"]["um_per_px"] = 0.25
    lab.write()
    assert "need 4 tiles" in lab.stops()[0].found
    lab.settings["data"]["crop_bottom"] = 0.3
    lab.write()
    assert "need 4 tiles" in lab.stops()[0].found
    lab.settings["data"]["crop_bottom"] = 0.33
    lab.write()
    assert lab.stops() == []
