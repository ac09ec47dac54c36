"""Shards: ``.npy`` files of float32 rows that only ever grow at their end."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np

HEADER_BYTES = 128
"""Of a .npy file of version 1.0 with two axes; numpy leaves room in it for the first to grow."""


def append(path: Path, row: int, vectors: np.ndarray) -> None:
    """Write rows from row number `row` on, over whatever an interrupted writer left there.

    When this returns the rows are on disk, and the file is a sound ``.npy`` file of all its rows.

    Parameters
    ----------
    path : Path
        Made if `row` is 0.
    row : int
    vectors : ndarray of shape (n_rows, width), float32

    Raises
    ------
    OSError
        If the disk is full, or the folder cannot be written to.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "shard.npy"
    ...     append(path, 0, np.ones((2, 3), dtype=np.float32))
    ...     append(path, 1, np.zeros((1, 3), dtype=np.float32))
    ...     np.load(path)
    array([[1., 1., 1.],
           [0., 0., 0.]], dtype=float32)
    """
    rows, width = vectors.shape
    with path.open("r+b" if row else "wb") as file:
        file.seek(HEADER_BYTES + row * width * 4)
        file.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())
        file.truncate()
        file.flush()
        # the rows first: a header must never name rows that are not there
        os.fsync(file.fileno())
        file.seek(0)
        file.write(_header(row + rows, width))
        file.flush()
        os.fsync(file.fileno())


def read(path: Path, rows: np.ndarray, width: int) -> np.ndarray:
    """Read some rows.

    Parameters
    ----------
    path : Path
    rows : ndarray of shape (n_rows,), int64
    width : int

    Returns
    -------
    ndarray of shape (n_rows, width), float32

    Raises
    ------
    OSError
        If the file is missing or cannot be read.
    ValueError
        If it is shorter than its rows.
    """
    length = int(rows.max()) + 1
    mapped = np.memmap(path, dtype="<f4", mode="r", offset=HEADER_BYTES, shape=(length, width))
    return np.asarray(mapped[rows])


def _header(rows: int, width: int) -> bytes:
    buffer = io.BytesIO()
    contents = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
    np.lib.format.write_array_header_1_0(buffer, contents)
    header = buffer.getvalue()
    assert len(header) == HEADER_BYTES, "numpy pads the header of a matrix to 128 bytes"
    return header
