"""From the values of a file to grey values in [0, 1], by its depth or a declared range."""

from __future__ import annotations

import numpy as np

from client.findings import RefusedError
from client.settings import Data


def to_grey(values: np.ndarray, data: Data, *, bits: int, white_is_low: bool) -> np.ndarray:
    """Scale by the depth of integers up to 16 bits, or by the declared range of other values.

    Parameters
    ----------
    values : ndarray of shape (height, width)
        As the file has them.
    data : Data
        Of ``lab.toml``: `bit_depth` and `intensity_range` matter here.
    bits : int
        Of the file, which may be more than the camera has.
    white_is_low : bool

    Returns
    -------
    ndarray of shape (height, width), float32 in [0, 1]
        Black is 0.

    Raises
    ------
    RefusedError
        If the values lie outside, or no range is declared where one is needed.

    Examples
    --------
    >>> data = Data(table="t.csv", images=".", specimen="id", image="{id}.tif", bit_depth=12)
    >>> values = np.array([[0, 4095]], dtype=np.uint16)
    >>> to_grey(values, data, bits=16, white_is_low=True).tolist()
    [[1.0, 0.0]]
    """
    if values.dtype.kind == "u" and bits <= 16:
        depth = min(data.bit_depth or bits, bits)
        full, highest = 2**depth - 1, int(values.max())
        if highest > full:
            raise RefusedError(
                f"holds the grey value {highest}, and {depth} bits reach {full}",
                "correct bit_depth under [data] in lab.toml",
            )
        values = full - values if white_is_low else values
        return values.astype(np.float32) / np.float32(full)
    scaled = _in_range(values, data.intensity_range)
    return (1.0 - scaled if white_is_low else scaled).astype(np.float32)


def _in_range(values: np.ndarray, limits: tuple[float, float] | None) -> np.ndarray:
    """Scale the file's values from their range to [0, 1], in float64."""
    if not np.isfinite(values).all():
        raise RefusedError("holds NaN or infinite pixels", "export it as 8 or 16 bit grey values")
    lowest, highest = float(values.min()), float(values.max())
    span = f"holds {values.dtype} pixels from {lowest:g} to {highest:g}"
    if limits is None:
        raise RefusedError(
            span, "write intensity_range = [black, white] under [data] in lab.toml, or use 16 bits"
        )
    if lowest < limits[0] or highest > limits[1]:
        raise RefusedError(
            f"{span}, outside intensity_range {list(limits)}",
            "correct intensity_range under [data] in lab.toml",
        )
    scaled: np.ndarray = (values.astype(np.float64) - limits[0]) / (limits[1] - limits[0])
    return scaled
