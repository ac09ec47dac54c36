"""The scale of one image: as declared or as recorded in it, and square unless declared."""

from __future__ import annotations

from pathlib import Path

from client.findings import RefusedError
from client.reading.image_header import ImageHeader
from client.reading.image_remarks import Remark
from client.reading.pixel_shape import is_square
from client.reading.scale_records import INSTEAD
from client.reading.tiff_scale import read_tiff_scale
from client.settings import FILE_NAME, METADATA, Data, UmPerPx
from common.federation import Imaging

_WRITE = f"under [data] in {FILE_NAME}, µm per px across and down"


def settle_scale(
    path: Path, header: ImageHeader, declared: UmPerPx | None, data: Data, imaging: Imaging
) -> UmPerPx | None:
    """Return how many µm a pixel of the upright image has.

    Parameters
    ----------
    path : Path
    header : ImageHeader
    declared : float, pair of float, or None
        As ``lab.toml`` or the table has it.
    data : Data
        Of ``lab.toml``: `um_per_px` matters here.
    imaging : Imaging

    Returns
    -------
    float, pair of float (across, down), or None
        A pair only if it was declared: that is how a lab says that pixels are not square.

    Raises
    ------
    RefusedError
        If the image's own header or record says that its pixels are not square, and no pair is
        declared; or the scale is to be read from the image, and is not there.
    """
    if isinstance(declared, tuple):
        return declared
    # with fit, the whole field becomes one tile, whatever shape its pixels have
    if imaging.scale != "fit":
        _check_square(header, declared)
    return _recorded(path, header) if data.um_per_px == METADATA else declared


def remarks_on_scale(header: ImageHeader, scale: UmPerPx | None) -> list[Remark]:
    """Remark on a header that says that pixels are not square, but not as declared.

    Examples
    --------
    >>> header = ImageHeader(format="PNG", height=9, width=9, bits=8, density=(200.0, 100.0))
    >>> remarks_on_scale(header, (0.2, 0.4)), len(remarks_on_scale(header, (0.4, 0.2)))
    ([], 1)
    """
    density = header.upright_density
    if not isinstance(scale, tuple) or density is None or is_square(*density):
        return []
    if is_square(scale[0] * density[0], scale[1] * density[1]):
        return []
    return [
        Remark(
            found=f"{_shown(density)}, and um_per_px = {list(scale)} is declared",
            action=f"check um_per_px {_WRITE}",
        )
    ]


def _check_square(header: ImageHeader, declared: UmPerPx | None) -> None:
    density = header.upright_density
    if density is None or is_square(*density):
        return
    ratio = density[0] / density[1]
    if isinstance(declared, float):
        pair = f"[{declared:g}, {declared * ratio:.4g}] {_WRITE}, if {declared:g} is that across"
    else:
        pair = f"[x, y] {_WRITE}: y is {ratio:.4g} x"
    raise RefusedError(
        f"{_shown(density)}: its pixels are not square",
        f"write um_per_px = {pair}; if the header is wrong, write the same number twice",
    )


def _shown(density: tuple[float, float]) -> str:
    return f"its header has {density[0]:.6g} px across and {density[1]:.6g} px down to one length"


def _recorded(path: Path, header: ImageHeader) -> float:
    if header.format != "TIFF":
        raise RefusedError(
            f'um_per_px = "{METADATA}" is declared, and a {header.format} file has no scale',
            f"export the image as TIFF from the instrument, or {INSTEAD}",
        )
    stored = read_tiff_scale(path, header)
    across, down = stored if header.orientation <= 4 else stored[::-1]
    if not is_square(across, down):
        raise RefusedError(
            f"its record has {across:g} µm per px across and {down:g} down: its pixels are not "
            "square",
            f'write um_per_px = [{across:g}, {down:g}] in place of "{METADATA}" {_WRITE}',
        )
    return across
