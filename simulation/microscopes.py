"""Six microscopes that see one and the same section differently.

A section becomes a map of brightness: polished carbon fibres reflect most, resin less, voids and
cracks hardly at all. A microscope then adds what keeps a model from one laboratory from working
in the next: its magnification, focus, contrast, gamma, noise, a ramp of charging or of uneven
light, and the file format and bit depth of its camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import tifffile

from simulation.composites import Coverage, Section, rasterise

Image = npt.NDArray[np.float32]

FIBRE, MATRIX, VOID, CRACK = 0.74, 0.40, 0.07, 0.06
JPEG_QUALITY = 95
PNG_COMPRESSION = 3


@dataclass(frozen=True, kw_only=True)
class Microscope:
    """How one laboratory takes and stores a micrograph.

    Attributes
    ----------
    num_px : int
        Pixels along one side of the micrograph, which shows the whole section.
    brightness, contrast, gamma : float
        Grey value = (brightness + contrast * (reflectance - 0.5)) ** gamma.
    blur_um : float
        Standard deviation of the point spread function.
    noise : float
        Standard deviation of the noise at full brightness; it goes with the square root of the
        brightness, as photons and electrons do.
    ramp : float
        Relative change of brightness from one edge to the opposite one.
    polish : float
        Depth of the marks that polishing leaves in the resin.
    bit_depth : int
        8 or 16.
    suffix : str
        Of the file: .png, .tif, .jpg or .bmp.
    """

    num_px: int
    brightness: float = 0.5
    contrast: float = 1.0
    gamma: float = 1.0
    blur_um: float = 0.15
    noise: float = 0.02
    ramp: float = 0.0
    polish: float = 0.02
    bit_depth: int = 8
    suffix: str = ".png"

    def um_per_px(self, side: float) -> float:
        """Return the size of a pixel where the micrograph shows a square of `side` µm."""
        return side / self.num_px


def micrograph(
    section: Section, microscope: Microscope, rng: np.random.Generator
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Take a picture of a section.

    Returns
    -------
    ndarray of shape (num_px, num_px)
        uint8, or uint16 for a microscope of 16 bits.

    Examples
    --------
    >>> section = Section(side=40.0, fibres=np.array([[20, 20, 3.5]]), voids=np.empty((0, 5)))
    >>> picture = micrograph(section, Microscope(num_px=100), np.random.default_rng(0))
    >>> picture.shape, picture.dtype, bool(picture[50, 50] > picture[5, 5])
    ((100, 100), dtype('uint8'), True)
    """
    pixel = microscope.um_per_px(section.side)
    coverage = rasterise(section, microscope.num_px)
    picture = _reflectance(coverage, pixel, microscope.polish, rng)
    return expose(picture, microscope, pixel, rng)


def expose(
    picture: Image, microscope: Microscope, pixel: float, rng: np.random.Generator
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Take a picture of what reflects light so much: light, focus, noise, contrast, gamma.

    Parameters
    ----------
    picture : ndarray of shape (height, width), float32 in [0, 1]
        Overwritten.
    microscope : Microscope
    pixel : float
        Of the picture, in the unit of `blur_um`.
    rng : Generator

    Returns
    -------
    ndarray of shape (height, width)
        uint8, or uint16 for a microscope of 16 bits.
    """
    picture *= _light(picture.shape, microscope.ramp, rng)
    # nobody focuses and sets the contrast twice alike
    focus, brightness, contrast = rng.normal(1.0, [0.1, 0.03, 0.04])
    picture = _blurred(picture, microscope.blur_um * abs(focus) / pixel)
    noise = rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(microscope.noise)
    picture += noise * np.sqrt(np.clip(picture, 0.02, None))
    grey = microscope.brightness * brightness + microscope.contrast * contrast * (picture - 0.5)
    grey = np.clip(grey, 0, 1) ** microscope.gamma
    levels: Image = np.round(grey * np.float32(2**microscope.bit_depth - 1))
    return levels.astype(np.uint8) if microscope.bit_depth == 8 else levels.astype(np.uint16)


def save(picture: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], path: Path) -> None:
    """Write a picture in the format that the suffix of `path` names."""
    if path.suffix == ".tif":
        tifffile.imwrite(path, picture, photometric="minisblack")
        return
    options = {
        ".jpg": [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY],
        ".png": [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION],
    }
    # encoded here and written by Python, which alone says why a file cannot be written
    _, encoded = cv2.imencode(path.suffix, picture, options.get(path.suffix, []))
    path.write_bytes(encoded.tobytes())


def _reflectance(
    coverage: Coverage, pixel: float, polish: float, rng: np.random.Generator
) -> Image:
    fibre, void, crack = (np.asarray(share, dtype=np.float32) for share in coverage)
    resin = MATRIX + polish * _marks(fibre.shape, pixel, rng)
    # fibres stand out of the softer resin after polishing: a dark seam, and rounded shoulders
    relief = _blurred(fibre, 0.45 / pixel)
    grain = 0.035 * _noise(fibre.shape, 2.5 / pixel, rng)
    shoulders = FIBRE + grain - 0.25 * (1 - _blurred(fibre, 0.9 / pixel))
    picture = resin * (1 - fibre) + shoulders * fibre - 0.16 * relief * (1 - fibre)
    # a void's wall slopes away from the light; its edge is rounded and shines
    wall = 1 - _blurred(void, 1.2 / pixel)
    rim = _blurred(void, 0.5 / pixel) * (1 - void)
    floor = VOID + 0.30 * wall + 0.03 * _noise(fibre.shape, 1.5 / pixel, rng)
    picture += 0.22 * rim * (1 - fibre)
    picture = picture * (1 - void) + floor * void
    return np.asarray(picture * (1 - crack) + CRACK * crack, dtype=np.float32)


def _marks(shape: tuple[int, ...], pixel: float, rng: np.random.Generator) -> Image:
    # fine grain, broad shades of unevenly cured resin, and streaks along the polishing direction
    grain = _noise(shape, 0.3 / pixel, rng)
    shades = _noise(shape, 6.0 / pixel, rng)
    streaks = _noise(shape, 0.35 / pixel, rng, along=9.0 / pixel)
    centre = (shape[1] / 2, shape[0] / 2)
    turn = cv2.getRotationMatrix2D(centre, rng.uniform(0, 180), 1.45)
    turned = cv2.warpAffine(streaks, turn, shape[::-1], borderMode=cv2.BORDER_REFLECT)
    return np.asarray(0.6 * grain + 0.8 * shades + 0.8 * turned, dtype=np.float32)


def _light(shape: tuple[int, ...], ramp: float, rng: np.random.Generator) -> Image:
    angle = rng.uniform(0, 2 * np.pi)
    down, across = (np.linspace(-0.5, 0.5, num_px, dtype=np.float32) for num_px in shape)
    tilt = np.cos(angle) * across[None, :] + np.sin(angle) * down[:, None]
    corner = across[None, :] ** 2 + down[:, None] ** 2
    return np.asarray(1 + ramp * tilt - 0.3 * abs(ramp) * corner, dtype=np.float32)


def _noise(
    shape: tuple[int, ...], sigma: float, rng: np.random.Generator, *, along: float = 0.0
) -> Image:
    # smooth noise of unit variance; drawn coarser and enlarged where it is smooth
    shrink = max(1, int(sigma / 2))
    coarse = tuple(-(-size // shrink) for size in shape)
    grains = rng.standard_normal(coarse, dtype=np.float32)
    across = max(sigma / shrink, 0.3)
    smooth = cv2.GaussianBlur(
        grains, (0, 0), max(along / shrink, across), sigmaY=across, borderType=cv2.BORDER_REFLECT
    )
    field = cv2.resize(smooth, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(field / max(float(field.std()), 1e-6), dtype=np.float32)


def _blurred(picture: Image, sigma: float) -> Image:
    return np.asarray(
        cv2.GaussianBlur(picture, (0, 0), max(sigma, 0.1), borderType=cv2.BORDER_REFLECT),
        dtype=np.float32,
    )
