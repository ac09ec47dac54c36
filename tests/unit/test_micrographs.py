"""Decoding of micrographs: each pixel value is checked against the array that was written."""

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps, PngImagePlugin

from client.findings import RefusedError
from client.micrographs import inspect_micrograph, read_micrograph
from client.reading.image_header import read_header
from client.settings import Data
from common.errors import LabDataError

DATA = Data(table="t.csv", images=".", specimen="id", image="{id}.png")
GREY = np.random.default_rng(0).integers(0, 256, (40, 56), dtype=np.uint8)
DEEP = np.random.default_rng(1).integers(0, 65536, (40, 56), dtype=np.uint16)


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def assert_reads(path: Path, expected: np.ndarray, data: Data = DATA) -> None:
    pixels = read_micrograph(path, data)
    assert pixels.dtype == np.float32
    assert pixels.flags.c_contiguous
    np.testing.assert_allclose(pixels, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.TIFF"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_eight_bits(tmp_path: Path, name: str, mode: str) -> None:
    assert_reads(save(tmp_path / name, Image.fromarray(GREY).convert(mode)), GREY / 255)


def test_a_jpeg_is_what_opencv_decodes(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.fromarray(GREY), quality=90)
    assert_reads(path, np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)) / 255)


def test_a_gamma_in_the_file_does_not_change_grey_values(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", (45455).to_bytes(4, "big"))
    path = save(tmp_path / "a.png", Image.fromarray(GREY).convert("RGB"), pnginfo=info)
    assert_reads(path, GREY / 255)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_keep_all_their_levels(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, Image.fromarray(DEEP))
    assert_reads(path, DEEP / 65535)
    twelve = save(tmp_path / f"twelve{name}", Image.fromarray(DEEP // 16))
    assert_reads(twelve, (DEEP // 16) / 4095, DATA.replace(bit_depth=12))
    with pytest.raises(LabDataError, match="12 bits reach 4095"):
        read_micrograph(path, DATA.replace(bit_depth=12))


def test_a_declared_depth_leaves_eight_bit_images_alone(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(GREY))
    assert_reads(path, GREY / 255, DATA.replace(bit_depth=12))


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("pixels", [GREY, DEEP], ids=["8 bit", "16 bit"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiffs(
    tmp_path: Path, byteorder: Any, pixels: np.ndarray, photometric: str, compression: str | None
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, pixels, byteorder=byteorder, photometric=photometric, compression=compression
    )
    full = np.iinfo(pixels.dtype).max
    assert_reads(path, (full - pixels if photometric == "miniswhite" else pixels) / full)


def test_white_is_low_within_the_depth_or_range_that_is_declared(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    twelve = DEEP >> 4
    tifffile.imwrite(path, twelve, photometric="miniswhite")
    assert_reads(path, (4095 - twelve) / 4095, DATA.replace(bit_depth=12))
    # not declared, its highest value says what to declare
    remarks = [remark.found for remark in inspect_micrograph(path, DATA).remarks]
    assert f"has 16 bits, and its highest grey value is {twelve.max()}" in remarks
    with pytest.raises(RefusedError, match=f"grey value {twelve.max()}, and 8 bits reach 255"):
        read_micrograph(path, DATA.replace(bit_depth=8))
    for dtype, limits in ((np.float32, (-0.5, 1.5)), (np.int16, (-200.0, 200.0))):
        stored = (GREY / 255 if dtype == np.float32 else GREY.astype(float) - 128).astype(dtype)
        tifffile.imwrite(path, stored, photometric="miniswhite")
        expected = (limits[1] - stored.astype(float)) / (limits[1] - limits[0])
        assert_reads(path, expected, DATA.replace(intensity_range=limits))
        narrow = DATA.replace(intensity_range=(float(stored.min()) + 0.1, limits[1]))
        with pytest.raises(RefusedError, match=rf"pixels from {stored.min():g} to .* outside"):
            read_micrograph(path, narrow)


@pytest.mark.parametrize(
    ("compression", "mode"),
    [
        ("packbits", "L"),
        ("tiff_lzw", "L"),
        ("tiff_lzw", "I;16"),
        ("tiff_lzw", "RGB"),
        ("jpeg", "L"),
        ("jpeg", "RGB"),
        ("group4", "1"),
    ],
)
def test_compressions_of_other_programs(tmp_path: Path, compression: str, mode: str) -> None:
    image = Image.fromarray(DEEP) if mode == "I;16" else Image.fromarray(GREY).convert(mode)
    path = save(tmp_path / "a.tif", image, compression=compression)
    with Image.open(path) as back:
        full = 65535 if mode == "I;16" else 255
        values = np.asarray(back.convert("L") if mode in ("1", "RGB") else back)
    np.testing.assert_allclose(read_micrograph(path, DATA), values / full, atol=1.01 / 255)


def test_one_bit_tiffs(tmp_path: Path) -> None:
    black = np.zeros((40, 56), dtype=bool)
    black[:20] = True
    for photometric, white in (("minisblack", black), ("miniswhite", ~black)):
        tifffile.imwrite(tmp_path / "a.tif", black, photometric=photometric)
        assert_reads(tmp_path / "a.tif", white.astype(float))


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("pixels", [GREY, DEEP], ids=["8 bit", "16 bit"])
def test_colour_tiffs(tmp_path: Path, planar: Any, pixels: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    rgb = np.stack([pixels, pixels[::-1], pixels[:, ::-1]])
    stored = rgb if planar == "separate" else np.moveaxis(rgb, 0, -1)
    tifffile.imwrite(path, stored, photometric="rgb", planarconfig=planar)
    grey = np.tensordot([0.299, 0.587, 0.114], rgb.astype(float), 1) / np.iinfo(pixels.dtype).max
    np.testing.assert_allclose(read_micrograph(path, DATA), grey, atol=0.51 / 255)
    assert [r.found for r in inspect_micrograph(path, DATA).remarks] == [
        "is a colour image; its brightness is used"
    ]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
def test_a_coloured_data_bar_that_is_cut_off_is_no_colour(tmp_path: Path, name: str) -> None:
    rgb = np.repeat(GREY[..., None], 3, axis=2)
    rgb[32:] = (250, 220, 0)
    upside_down = Image.Exif()
    upside_down[0x0112] = 3
    if name == "a.jpg":
        image = Image.fromarray(rgb[::-1, ::-1])
        path = save(tmp_path / name, image, quality=100, subsampling=0, exif=upside_down)
    else:
        path = save(tmp_path / name, Image.fromarray(rgb))

    def remarks(data: Data) -> str:
        return " ".join(remark.found for remark in inspect_micrograph(path, data).remarks)

    assert "colour image" in remarks(DATA)
    assert "colour image" not in remarks(DATA.replace(crop_bottom=0.2))
    assert_reads(path, read_micrograph(path, DATA)[:32], DATA.replace(crop_bottom=0.2))


def test_a_palette_of_greys_is_grey(tmp_path: Path) -> None:
    for name in ("a.png", "a.tif"):
        image = Image.fromarray(255 - GREY)
        image = image.convert("P")
        image.putpalette([level for i in range(256) for level in [255 - i] * 3])
        path = save(tmp_path / name, image)
        assert_reads(path, GREY / 255)
        assert inspect_micrograph(path, DATA).remarks == ()


def test_float_tiffs_need_their_range(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY.astype(np.float32) - 10)
    assert_reads(path, GREY / 255, DATA.replace(intensity_range=[-10, 245]))
    with pytest.raises(LabDataError, match="write intensity_range"):
        read_micrograph(path, DATA)
    with pytest.raises(LabDataError, match="outside intensity_range"):
        read_micrograph(path, DATA.replace(intensity_range=[0, 245]))


def test_signed_integers_need_their_range_too(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY.astype(np.int16) - 10)
    assert_reads(tmp_path / "a.tif", GREY / 255, DATA.replace(intensity_range=[-10, 245]))


def test_a_declared_page(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.stack([GREY, GREY[::-1]]), photometric="minisblack")
    assert_reads(path, GREY[::-1] / 255, DATA.replace(page=1))


def test_a_preview_is_no_page(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(GREY[::4, ::4].copy(), subfiletype=1)
        writer.write(GREY)
    assert_reads(path, GREY / 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["PNG", "JPEG", "TIFF"])
def test_orientations(tmp_path: Path, orientation: int, format_: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = np.add.outer(np.arange(0, 160, 4), np.arange(0, 84, 1.5)).astype(np.uint8)
    path = tmp_path / {"PNG": "a.png", "JPEG": "a.jpg", "TIFF": "a.tif"}[format_]
    save(path, Image.fromarray(smooth), exif=exif, format=format_)
    if format_ == "TIFF":
        tifffile.imwrite(path, smooth, extratags=[(274, 3, 1, orientation, True)])
    turned = Image.fromarray(smooth)
    turned.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(turned))
    inspection = inspect_micrograph(path, DATA)
    assert inspection.header.shape == inspection.grey.shape == expected.shape
    np.testing.assert_allclose(inspection.grey, expected / 255, atol=4 / 255)
    assert len(inspection.remarks) == (orientation != 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_bottom_is_cut_from_the_upright_image(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, extratags=[(274, 3, 1, orientation, True)])
    upright = read_micrograph(path, DATA)
    # a quarter of 40 rows are 10, of 56 rows 14
    kept = 30 if orientation <= 4 else 42
    assert_reads(path, upright[:kept], DATA.replace(crop_bottom=0.25))


def test_the_bottom_is_cut_before_anything_is_said_of_the_grey_values(tmp_path: Path) -> None:
    twelve = DEEP // 16
    twelve[30:] = 65535
    path = save(tmp_path / "a.png", Image.fromarray(twelve))
    cut = DATA.replace(crop_bottom=0.25)
    with pytest.raises(LabDataError, match="holds the grey value 65535, and 12 bits reach 4095"):
        read_micrograph(path, DATA.replace(bit_depth=12))
    assert_reads(path, twelve[:30] / 4095, cut.replace(bit_depth=12))
    assert [r.found for r in inspect_micrograph(path, DATA).remarks] == [
        "is saturated: 25% of its pixels are fully white"
    ]
    inspection = inspect_micrograph(path, cut)
    assert inspection.grey.shape == (30, 56)
    assert "has 16 bits, and its highest" in inspection.remarks[0].found


def test_damaged_exif_data_count_as_upright(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.fromarray(GREY), exif=b"Exif\0\0II*\0\xff\xff\xff")
    assert read_header(path, DATA).orientation == 1


def test_a_header_does_not_decode(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.fromarray(GREY).save(content, "PNG")
    # the pixels are cut off, and their chunk still announced
    (tmp_path / "a.png").write_bytes(content.getvalue()[:60])
    assert read_header(tmp_path / "a.png", DATA).shape == (40, 56)
    with pytest.raises(LabDataError, match="truncated"):
        read_micrograph(tmp_path / "a.png", DATA)


def test_nothing_is_printed_about_a_damaged_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "a.jpg", "a.bmp", "a.tif"):
        path = save(tmp_path / name, Image.fromarray(GREY))
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(LabDataError):
            read_micrograph(path, DATA)
    assert capfd.readouterr() == ("", "")


def test_what_the_camera_adds_is_not_read(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x013B] = "Operator Kim"
    path = save(tmp_path / "a.jpg", Image.fromarray(GREY), exif=exif)
    assert "Kim" not in repr(inspect_micrograph(path, DATA))


@pytest.mark.usefixtures("in_bounded_time")
def test_a_tiff_whose_pages_form_a_circle(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, byteorder="<")
    content = bytearray(path.read_bytes())
    first = int.from_bytes(content[4:8], "little")
    next_page = first + 2 + 12 * int.from_bytes(content[first : first + 2], "little")
    content[next_page : next_page + 4] = content[4:8]
    path.write_bytes(content)
    with pytest.raises(LabDataError, match="is damaged, or has more than 10000 pages"):
        read_micrograph(path, DATA)


def test_a_png_chunk_that_claims_to_be_long(tmp_path: Path) -> None:
    # OpenCV 5 reserves what the chunk claims, here 2 GB
    path = save(tmp_path / "a.png", Image.fromarray(GREY))
    content = path.read_bytes()
    path.write_bytes(content[:-12] + b"\x7f\xff\xff\xf0" + content[-8:])
    with pytest.raises(LabDataError, match="truncated or damaged PNG"):
        read_micrograph(path, DATA)
