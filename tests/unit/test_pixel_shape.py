"""What each format's header says of the shape of its pixels."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from client.findings import RefusedError
from client.reading.image_header import read_header
from client.reading.image_scale import settle_scale
from client.settings import Data
from common.federation import Imaging

DATA = Data(table="t.csv", images=".", specimen="id", image="{id}.png")
GREY = np.random.default_rng(0).integers(0, 256, (40, 56), dtype=np.uint8)
PIXELS = Imaging(scale="pixels", tile_px=32)
FIT = Imaging(scale="fit", tile_px=32)


def settle(path: Path, declared: Any = None, imaging: Imaging = PIXELS) -> Any:
    return settle_scale(path, read_header(path, DATA), declared, DATA, imaging)


def png(path: Path, across: int, down: int, unit: int) -> Path:
    Image.fromarray(GREY).save(path)
    chunk = b"pHYs" + struct.pack(">IIB", across, down, unit)
    content = path.read_bytes()
    # 33 bytes are the signature and the header
    added = struct.pack(">I", 9) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(content[:33] + added + content[33:])
    return path


def jpeg(path: Path, across: int, down: int, unit: int) -> Path:
    Image.fromarray(GREY).save(path)
    content = bytearray(path.read_bytes())
    assert content[6:11] == b"JFIF\0"
    content[13:18] = struct.pack(">BHH", unit, across, down)
    path.write_bytes(content)
    return path


def written(folder: Path, kind: str, across: int, down: int) -> Path:
    """Write an image whose header has these densities."""
    match kind.split():
        case ["PNG", unit]:
            return png(folder / "a.png", across, down, int(unit))
        case ["JFIF", unit]:
            return jpeg(folder / "a.jpg", across, down, int(unit))
        case ["EXIF", _]:
            exif = Image.Exif()
            exif[282], exif[283] = across, down
            path = folder / "a.jpg"
            Image.fromarray(GREY).save(path, exif=exif)
            content = path.read_bytes()
            path.write_bytes(content[:2] + content[20:])  # a camera writes no JFIF segment
            return path
        case ["TIFF", unit]:
            path = folder / "a.tif"
            tifffile.imwrite(path, GREY, resolution=(across, down), resolutionunit=int(unit))
            return path
    path = folder / "a.bmp"
    Image.fromarray(GREY).save(path, dpi=(across, down))
    return path


KINDS = ["PNG 0", "PNG 1", "JFIF 0", "JFIF 1", "JFIF 2", "EXIF 2", "TIFF 1", "TIFF 2", "BMP 1"]


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_twice_as_high_as_wide_are_refused_unless_declared(
    tmp_path: Path, kind: str
) -> None:
    path = written(tmp_path, kind, 400, 200)
    density = read_header(path, DATA).density
    assert density is not None and density[0] / density[1] == pytest.approx(2, rel=1e-3)
    with pytest.raises(RefusedError, match=r"px down to one length: its pixels are not square"):
        settle(path)
    with pytest.raises(RefusedError, match=r"um_per_px = \[x, y\] .*: y is 2 x"):
        settle(path)
    with pytest.raises(RefusedError, match=r"um_per_px = \[0.25, 0.5\] .*if 0.25 is that across"):
        settle(path, 0.25)
    assert settle(path, (0.25, 0.5)) == (0.25, 0.5)
    # the number twice says that the header is wrong
    assert settle(path, (0.25, 0.25)) == (0.25, 0.25)
    assert settle(path, None, FIT) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pair", [(300, 300), (300, 302), (302, 300), (0, 0), (300, 0)])
def test_square_pixels_pass_up_to_rounding_and_no_resolution_says_nothing(
    tmp_path: Path, kind: str, pair: tuple[int, int]
) -> None:
    assert settle(written(tmp_path, kind, *pair), 0.25) == 0.25


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_on_its_side_swaps_the_axes(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, resolution=(400, 200), extratags=[(274, 3, 1, orientation, True)])
    ratio = "2 x" if orientation <= 4 else "0.5 x"
    with pytest.raises(RefusedError, match=f"y is {ratio}"):
        settle(path)


def test_a_header_that_denies_the_declaration_is_remarked_on(lab: Any) -> None:
    for i in range(1, 25):
        (lab.images / f"S{i:02}.png").unlink()
        pixels = np.random.default_rng(i).integers(1, 255, (48, 64), dtype=np.uint8)
        tifffile.imwrite(lab.images / f"S{i:02}.tif", pixels, resolution=(200, 100))
    lab.settings["data"] |= {"image": "{id}.tif", "um_per_px": [0.5, 1.0]}
    lab.federation["imaging"] = {"scale": "physical", "um_per_px": 0.5, "tile_px": 32}
    lab.write_toml()
    assert lab.fixes() == []
    lab.settings["data"]["um_per_px"] = [1.0, 0.5]
    lab.write_toml()
    fixes = lab.fixes()
    assert len(fixes) == 24
    assert "200 px across and 100 px down" in fixes[0].found
    assert "um_per_px = [1.0, 0.5] is declared" in fixes[0].found
