"""What kind of image a file is, read from its first bytes, before anything is decoded."""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from PIL import Image

from client.findings import RefusedError
from client.reading.folder import IMAGE_SUFFIXES, regular_file_size
from client.reading.pixel_shape import Density, raster_density
from client.reading.tiff_files import read_tiff_header
from client.settings import Data

MAX_PIXELS = 100_000_000
MAX_SIDE = 30_000
MAX_BYTES = 2**31

Format = Literal["TIFF", "PNG", "JPEG", "BMP"]

_MAGIC: tuple[tuple[bytes, Format], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
_FOREIGN = (
    (b"ZISRAWFILE", "a Zeiss CZI file"),
    (b"\xd0\xcf\x11\xe0", "a microscope's own OLE file"),
    (b"GIF8", "a GIF file"),
    (b"RIFF", "a WebP file"),
    (b"\0\0\0\x0cjP", "a JPEG 2000 file"),
    (b"%PDF", "a PDF file"),
    (b"PK\x03\x04", "a ZIP archive"),
)

# Pillow's own limit only warns, and the limits here are stricter
Image.MAX_IMAGE_PIXELS = None
_QUIET = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """What the header of an image says.

    Attributes
    ----------
    format : str
    height, width : int
        In px, as stored: before the orientation is applied.
    bits : int
        Per channel.
    orientation : int
        From 1 to 8, as EXIF counts; 1 is upright.
    page : int
        Index of the page to decode.
    density : pair of float or None
        px to one length, across and down as stored; None where the header does not say.
    """

    format: Format
    height: int
    width: int
    bits: int
    orientation: int = 1
    page: int = 0
    density: Density | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in px, once the orientation is applied."""
        upright = (self.height, self.width)
        return upright if self.orientation <= 4 else upright[::-1]

    @property
    def upright_density(self) -> Density | None:
        """Density across and down, once the orientation is applied."""
        if self.density is None or self.orientation <= 4:
            return self.density
        return self.density[::-1]


def read_header(path: Path, data: Data) -> ImageHeader:
    """Read the header of an image, and refuse what must not be decoded.

    Raises
    ------
    RefusedError
        If it is no regular file or no TIFF, PNG, JPEG or BMP, if content and extension disagree,
        or if it is too large, has several pages, or has colours for printing.
    """
    size = regular_file_size(path)
    if size > MAX_BYTES:
        raise RefusedError(f"has {size} bytes, over 2 GiB", "crop it, or export it again")
    try:
        with path.open("rb") as file:
            found = _format(file.read(16), path)
            file.seek(0)
            header = _tiff(file, data) if found == "TIFF" else _raster(file, found, size)
    except RefusedError:
        raise
    except Exception as error:
        # a decoder that is given damaged bytes may raise anything
        raise RefusedError(
            f"its header cannot be read ({type(error).__name__})", "export the image again"
        ) from error
    _check_size(header)
    return header


def _format(magic: bytes, path: Path) -> Format:
    if not magic:
        raise RefusedError("is empty (0 bytes)", "export the image again")
    found = next((name for start, name in _MAGIC if magic.startswith(start)), None)
    if found is None:
        foreign = next((name for start, name in _FOREIGN if magic.startswith(start)), None)
        raise RefusedError(
            f"is {foreign or 'not a TIFF, PNG, JPEG or BMP file'}",
            "export the image as TIFF or PNG",
        )
    if IMAGE_SUFFIXES.get(path.suffix.lower()) != found:
        raise RefusedError(
            f"holds a {found} image, and its extension is {path.suffix!r}",
            "rename it by its content, or export it again",
        )
    return found


def _check_size(header: ImageHeader) -> None:
    height, width = header.shape
    if min(height, width) < 1:
        raise RefusedError(f"has {width} x {height} px", "export the image again")
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        raise RefusedError(
            f"has {width} x {height} px, more than 100 million or a side over {MAX_SIDE}",
            "crop it, or cut it into several micrographs",
        )


def _tiff(file: IO[bytes], data: Data) -> ImageHeader:
    found = read_tiff_header(file, data.page)
    return ImageHeader(
        format="TIFF",
        height=found.height,
        width=found.width,
        bits=found.bits,
        orientation=found.orientation,
        page=found.page,
        density=found.density,
    )


def _raster(file: IO[bytes], found: Format, size: int) -> ImageHeader:
    if size > MAX_BYTES:
        raise RefusedError(f"has {size} bytes, over 2 GiB", "crop it, or export it again")
    with _QUIET, warnings.catch_warnings():
        # Pillow warns of damaged EXIF data; then the image counts as upright
        warnings.simplefilter("ignore")
        with Image.open(file, formats=[found]) as image:
            if image.mode == "CMYK":
                raise RefusedError("has CMYK colours, meant for printing", "export it in grey")
            if getattr(image, "n_frames", 1) > 1 and found == "PNG":
                raise RefusedError(f"is an animation of {image.n_frames} pictures", "export one")  # type: ignore[attr-defined]
            # asking a PNG for EXIF data that do not precede its pixels would decode it
            has_exif = found != "PNG" or isinstance(image.info.get("exif"), bytes)
            exif = image.getexif() if has_exif else None
            orientation = 1 if exif is None else exif.get(0x0112, 1)
            density = raster_density(image, exif)
            width, height = image.size
            bits = 16 if image.mode.startswith("I") else 8
    return ImageHeader(
        format=found,
        height=height,
        width=width,
        bits=bits,
        orientation=orientation if orientation in range(1, 9) else 1,
        density=density,
    )
