"""The scale in the tags of instruments and programs, in the layout that each writes."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.findings import RefusedError
from client.reading.image_header import read_header
from client.reading.image_scale import settle_scale
from client.settings import Data
from common.federation import Imaging

DATA = Data(table="t.csv", images=".", specimen="id", image="{id}.tif", um_per_px="metadata")
IMAGING = Imaging(scale="physical", um_per_px=0.5, tile_px=32)
GREY = np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8)
FEI, ZEISS = 34682, 34118


def settle(path: Path) -> Any:
    return settle_scale(path, read_header(path, DATA), None, DATA, IMAGING)


def fei(
    width: str = "2.5e-007", height: str = "2.5e-007", *, image: str = "", bar: str = ""
) -> str:
    return (
        "[User]\r\nDate=03/17/2021\r\nUser=operator kim\r\nUserText=secret alloy\r\n\r\n"
        "[System]\r\nType=SEM\r\nDnumber=D8501\r\nSource=FEG\r\n\r\n"
        "[Beam]\r\nHV=20000\r\nSpot=3\r\n\r\n"
        "[Scan]\r\nInternalScan=true\r\nDwelltime=3e-006\r\n"
        f"PixelWidth={width}\r\nPixelHeight={height}\r\nHorFieldsize=1.6e-005\r\n\r\n"
        f"[Image]\r\nDigitalContrast=1\r\n{image}\r\n[PrivateFei]\r\nBitShift=0\r\n{bar}\r\n"
    )


def size(width: int, height: int) -> str:
    return f"ResolutionX={width}\r\nResolutionY={height}\r\n"


def zeiss(side: str, name: str = "AP_IMAGE_PIXEL_SIZE", stored: str = "64 * 48") -> str:
    return (
        "\r\n0\r\n0\r\n2.5e-007\r\nSV_USER_NAME\r\nUser Name = KIM\r\n"
        f"{name}\r\nImage Pixel Size = {side}\r\nAP_MAG\r\nMag =   5.00 K X\r\n"
        f"DP_IMAGE_STORE\r\nStore resolution = {stored}\r\n"
    )


def tagged(path: Path, code: int, text: str, pixels: np.ndarray = GREY, **options: Any) -> Path:
    tags = [(code, 2, 0, text.encode("cp1252"), True), *options.pop("tags", ())]
    tifffile.imwrite(path, pixels, extratags=tags, metadata=None, **options)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.tif"


def test_fei(path: Path) -> None:
    assert settle(tagged(path, FEI, fei(image=size(64, 48)))) == pytest.approx(0.25)


@pytest.mark.parametrize("bar", ["DatabarHeight=8\r\n", ""])
def test_the_data_bar_that_fei_adds_is_no_part_of_the_image(path: Path, bar: str) -> None:
    assert settle(tagged(path, FEI, fei(image=size(64, 40), bar=bar))) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("recorded", "bar"),
    [((128, 96), ""), ((64, 40), "DatabarHeight=6\r\n"), ((64, 20), ""), ((64, 60), "")],
)
def test_an_image_that_was_resized_or_cropped_since(
    path: Path, recorded: tuple[int, int], bar: str
) -> None:
    tagged(path, FEI, fei(image=size(*recorded), bar=bar))
    message = f"is of {recorded[0]} x {recorded[1]} px, and it has 64 x 48 px: it was resized"
    with pytest.raises(RefusedError, match=message):
        settle(path)


@pytest.mark.parametrize(
    ("side", "expected"),
    [("250 nm", 0.25), ("0.25 µm", 0.25), ("250.0 pm", 2.5e-4), ("0.001 mm", 1.0)],
)
@pytest.mark.parametrize("name", ["AP_IMAGE_PIXEL_SIZE", "AP_PIXEL_SIZE"])
def test_zeiss(path: Path, side: str, expected: float, name: str) -> None:
    assert settle(tagged(path, ZEISS, zeiss(side, name))) == pytest.approx(expected)


def test_a_zeiss_image_that_was_resized(path: Path) -> None:
    with pytest.raises(RefusedError, match="Zeiss record is of 1024 x 768 px"):
        settle(tagged(path, ZEISS, zeiss("250 nm", stored="1024 * 768")))


@pytest.mark.parametrize(
    ("unit", "px_per_unit"),
    [("um", 4), ("micron", 4), ("\\u00B5m", 4), ("nm", 0.004), ("mm", 4000)],
)
def test_imagej(path: Path, unit: str, px_per_unit: float) -> None:
    tifffile.imwrite(
        path, GREY, imagej=True, resolution=(px_per_unit, px_per_unit), metadata={"unit": unit}
    )
    assert settle(path) == pytest.approx(0.25, rel=1e-3)


def ome(path: Path, **sizes: Any) -> Path:
    tifffile.imwrite(path, GREY, ome=True, metadata={"axes": "YX", **sizes})
    return path


def test_ome(path: Path) -> None:
    assert settle(ome(path, PhysicalSizeX=0.25, PhysicalSizeY=0.25)) == 0.25
    nm = dict.fromkeys(("PhysicalSizeXUnit", "PhysicalSizeYUnit"), "nm")
    assert settle(ome(path, PhysicalSizeX=250, PhysicalSizeY=250, **nm)) == pytest.approx(0.25)


@pytest.mark.parametrize("side", ["0", "-2.5e-007", "nan", "inf", "1e-012", "0.002"])
def test_a_size_that_cannot_be_right(path: Path, side: str) -> None:
    with pytest.raises(RefusedError, match=r"FEI record has .* µm per px, which cannot be right"):
        settle(tagged(path, FEI, fei(side, side)))


def test_what_is_missing_is_named(path: Path) -> None:
    instead = 'write numbers or a column for um_per_px in place of "metadata"'
    tifffile.imwrite(path, GREY)
    with pytest.raises(RefusedError, match=f"no record of its scale by FEI.*; {instead}"):
        settle(path)
    with pytest.raises(RefusedError, match=r"no PixelWidth and PixelHeight under \[Scan\]"):
        settle(tagged(path, FEI, "[User]\r\nUser=kim\r\n"))
    with pytest.raises(RefusedError, match="size of a pixel in its FEI record is no number"):
        settle(tagged(path, FEI, fei("kim", "kim")))
    with pytest.raises(RefusedError, match="Zeiss record has no AP_IMAGE_PIXEL_SIZE"):
        settle(tagged(path, ZEISS, "\r\nAP_MAG\r\nMag = 5.00 K X\r\n"))
    with pytest.raises(RefusedError, match="Zeiss record has no unit of length"):
        settle(tagged(path, ZEISS, zeiss("250")))
    for unit in ("pixel", "inch", "cm"):
        tifffile.imwrite(path, GREY, imagej=True, resolution=(72, 72), metadata={"unit": unit})
        with pytest.raises(RefusedError, match="ImageJ record has no unit of length"):
            settle(path)
    with pytest.raises(RefusedError, match="OME record has no PhysicalSizeX"):
        settle(ome(path))


def test_a_record_without_a_scale_leaves_the_word_to_another(path: Path) -> None:
    imagej = b"ImageJ=1.53t\nunit=pixel\n"
    tags = [(270, 2, 0, imagej, True)]
    tagged(path, FEI, fei(image=size(64, 48)), tags=tags, description=None)
    assert settle(path) == pytest.approx(0.25)


def test_two_records_that_disagree(path: Path) -> None:
    tags = [(270, 2, 0, b"ImageJ=1.53t\nunit=um\n", True)]
    tagged(path, FEI, fei(), tags=tags, description=None, resolution=(2, 2), resolutionunit=1)
    with pytest.raises(RefusedError, match=r"FEI record has 0.25 µm per px, and its ImageJ .* 0.5"):
        settle(path)


@pytest.mark.parametrize(("orientation", "pair"), [(1, "[0.25, 0.5]"), (6, "[0.5, 0.25]")])
def test_a_record_of_pixels_that_are_not_square(path: Path, orientation: int, pair: str) -> None:
    tagged(path, FEI, fei("2.5e-007", "5e-007"), tags=[(274, 3, 1, orientation, True)])
    with pytest.raises(RefusedError) as refused:
        settle(path)
    assert f"write um_per_px = {pair} in place" in str(refused.value)


def test_only_tiff_files_have_records(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(cv2.imencode(".png", GREY)[1].tobytes())
    with pytest.raises(RefusedError, match="a PNG file has no scale; export the image as TIFF"):
        settle(path)


def test_a_damaged_record(path: Path) -> None:
    ome(path, PhysicalSizeX=0.25, PhysicalSizeY=0.25)
    path.write_bytes(path.read_bytes().replace(b"</Pixels>", b"<<Pixels>"))
    with pytest.raises(RefusedError, match="record of the scale cannot be read"):
        settle(path)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), code=st.sampled_from([FEI, ZEISS, 270]))
def test_damage_never_escapes(path: Path, data: st.DataObject, code: int) -> None:
    text = {FEI: fei(image=size(64, 48)), ZEISS: zeiss("250 nm")}.get(code, "ImageJ=1\nunit=um\n")
    tagged(path, code, text, description=None, resolution=(4, 4))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - GREY.size - 1))
        content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        assert 1e-5 <= settle(path) <= 1e3
    except RefusedError as why:
        assert why.action
