"""The scale of each micrograph: how many µm a pixel has."""

from __future__ import annotations

import numpy as np

from client.findings import Findings, RefusedError, printable
from client.reading.columns import find_column, read_numbers, split_header
from client.reading.measurements import LabTable
from client.reading.table import Table
from client.settings import FILE_NAME, METADATA
from common.units import same_unit


def read_scales(lab: LabTable, findings: Findings, *, required: bool) -> np.ndarray:
    """Read how many µm a pixel has, for each row of the table.

    Returns
    -------
    ndarray of shape (n_rows,), float64
        NaN where it is not known; noted if it is required. NaN throughout where the table does
        not have it: with a declared pair, or with the word for the images' own records.
    """
    table, given = lab.table, lab.settings.data.um_per_px
    if isinstance(given, float):
        return np.full(len(table.rows), given)
    unknown = np.full(len(table.rows), np.nan)
    if given is None:
        if required:
            findings.stop(
                FILE_NAME,
                "the scale of the micrographs is missing, and the federation needs it",
                "write um_per_px = a number or the name of a column under [data]",
                column="data.um_per_px",
            )
        return unknown
    if isinstance(given, tuple):
        return unknown
    if given == METADATA:
        _check_reserved(table, findings)
        return unknown
    column = find_column(table, given, "data.um_per_px", findings)
    if column is None:
        return unknown
    _check_scale_unit(table, column, findings)
    values = read_numbers(table, column, lab.settings.data, findings, required=required)
    for row in np.flatnonzero(values <= 0).tolist():
        why = RefusedError(f"{values[row]:g} µm per px is no scale", "correct the value")
        findings.refuse(
            table.file, why, row=table.lines[row], column=printable(table.columns[column])
        )
        values[row] = np.nan
    return values


def _check_reserved(table: Table, findings: Findings) -> None:
    for header in table.columns:
        if METADATA in (header, split_header(header)[0]):
            findings.stop(
                table.file,
                f'a column has the name that um_per_px = "{METADATA}" keeps for the image files',
                f"rename the column here, and in {FILE_NAME} if the scale is to be read from it",
                row=table.header_line,
                column=printable(header),
            )


def _check_scale_unit(table: Table, column: int, findings: Findings) -> None:
    header = table.columns[column]
    for per_pixel in ("/px", "/pixel", " per px", " per pixel"):
        header = header.replace(per_pixel, "")
    _, unit = split_header(header)
    if unit is not None and not same_unit(unit, "um"):
        findings.stop(
            table.file,
            f"the header says {unit!r}, and a scale is in µm per px",
            "convert the column to µm per px, and correct its header",
            row=table.header_line,
            column=printable(table.columns[column]),
        )
