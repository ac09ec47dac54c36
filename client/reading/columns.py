"""Columns of the table: finding them by name, their units, their numbers."""

from __future__ import annotations

import difflib
import re

import numpy as np

from client.findings import Findings, RefusedError, printable
from client.reading.cells import parse_number
from client.reading.table import Table
from client.settings import FILE_NAME, Data
from common.errors import UnitError
from common.units import check_unit, convert, same_unit

_WITH_UNIT = re.compile(r"(.*\S)\s*(?:\(([^()\[\]]+)\)|\[([^\[\]]+)\])")


def split_header(header: str) -> tuple[str, str | None]:
    """Split a header into a name and a unit; parentheses that hold no unit belong to the name.

    Examples
    --------
    >>> split_header("strength (MPa)"), split_header("Ra [um]"), split_header("strength (mean)")
    (('strength', 'MPa'), ('Ra', 'um'), ('strength (mean)', None))
    """
    match = _WITH_UNIT.fullmatch(header)
    if match is None:
        return header, None
    unit = (match[2] or match[3]).strip()
    try:
        check_unit(unit)
    except UnitError:
        return header, None
    return match[1], unit


def find_column(table: Table, name: str, key: str, findings: Findings) -> int | None:
    """Return the index of the column called `name`, with or without the unit in its header.

    Parameters
    ----------
    table : Table
    name : str
    key : str
        Where `name` stands in ``lab.toml``, for the message.
    findings : Findings
        Gains a stop if there is no such column, or more than one.
    """
    name = name.strip()
    if name in table.columns:
        return table.columns.index(name)
    found = [i for i, header in enumerate(table.columns) if split_header(header)[0] == name]
    if len(found) == 1:
        return found[0]
    if found:
        what = f"may be {' or '.join(repr(printable(table.columns[i])) for i in found)}"
        action = f"write the whole header as {key} in {FILE_NAME}"
    else:
        what = "there is no such column"
        headers = [printable(header) for header in table.columns if header]
        close = difflib.get_close_matches(name, headers, n=1, cutoff=0.0)
        known = f"the closest is {close[0]!r}" if close else "no column has a name"
        action = f"correct {key} in {FILE_NAME}; {known}"
    findings.stop(table.file, what, action, row=table.header_line, column=printable(name))
    return None


def check_header_unit(
    table: Table, column: int, unit: str, section: str, findings: Findings
) -> None:
    """Note it if the header names another unit than ``lab.toml``.

    What is of another dimension is taken for a label: in ``E (L)`` and ``E (T)`` of a composite
    the letters stand for longitudinal and transverse, not for litre and tesla.
    """
    header = table.columns[column]
    _, written = split_header(header)
    if written is None or same_unit(written, unit):
        return
    try:
        convert(np.ones(1), written, unit)
    except UnitError:
        findings.fix(
            table.file,
            f"{written!r} in the header is read as a label, since it does not convert to {unit}",
            "nothing, if it is one",
            row=table.header_line,
            column=printable(header),
        )
        return
    findings.stop(
        table.file,
        f"the header says {written!r}, and {FILE_NAME} says {unit!r}",
        f'write unit = "{written}" under [{section}] in {FILE_NAME}, which converts the '
        f"values, or correct the header to {unit}",
        row=table.header_line,
        column=printable(header),
    )


def read_numbers(
    table: Table, column: int, data: Data, findings: Findings, *, required: bool
) -> np.ndarray:
    """Read a column of numbers.

    Returns
    -------
    ndarray of shape (n_rows,), float64
        In the table's unit; NaN where missing or refused.
    """
    values = np.full(len(table.rows), np.nan)
    for row, cell in enumerate(table.cells(column)):
        try:
            number = parse_number(
                cell, decimal=data.decimal, missing=data.missing, delimiter=data.delimiter
            )
            if number is None and required:
                raise RefusedError("the value is missing", "every specimen needs it")
        except RefusedError as why:
            findings.refuse(
                table.file, why, row=table.lines[row], column=printable(table.columns[column])
            )
            continue
        values[row] = np.nan if number is None else number
    return values
