"""Rows of the table by specimen: one id, one value of each quantity, however many rows."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from client.findings import Findings, RefusedError, printable
from client.reading.table import Table

RowsBySpecimen: TypeAlias = dict[str, list[int]]
"""Indices of the rows of each specimen id, ids in the order of the table."""


def group_rows(table: Table, column: int, findings: Findings) -> RowsBySpecimen:
    """Group the rows by the specimen id in `column`, noting ids that cannot be trusted."""
    specimens: RowsBySpecimen = {}
    first_of_key: dict[str, int] = {}
    raw = [row[column] for row in table.rows]
    for row, text in enumerate(raw):
        try:
            check_label(text.strip())
        except RefusedError as why:
            findings.refuse(
                table.file, why, row=table.lines[row], column=printable(table.columns[column])
            )
            continue
        first = first_of_key.setdefault(_key(text), row)
        if raw[first] != text:
            _note_alike(table, column, first, row, "the id of a specimen", findings)
            continue
        specimens.setdefault(text.strip(), []).append(row)
    return specimens


def check_label(text: str) -> None:
    """Refuse a text as an id or a group that another program could take for a formula.

    Raises
    ------
    RefusedError
        If it is empty, holds control characters, or begins like a formula.
    """
    if not text:
        raise RefusedError("the cell is empty", "every specimen needs it")
    if printable(text) != text:
        raise RefusedError(
            f"'{printable(text)}' holds characters that cannot be printed",
            "write it with printable characters",
        )
    if text[0] in "=+@":
        raise RefusedError(
            f"{text!r} begins with {text[0]!r}, like a formula in a spreadsheet",
            "begin it with a letter or a digit",
        )


def _key(text: str) -> str:
    """Return what ids share that a reader takes for one."""
    return unicodedata.normalize("NFKC", "".join(text.split())).casefold()


def check_spelling(table: Table, column: int, what: str, findings: Findings) -> None:
    """Stop for labels that a reader takes for one, such as ``Lab A`` and ``lab A``.

    Parameters
    ----------
    table : Table
    column : int
    what : str
        The thing that the labels name, for the message.
    findings : Findings
        Gains a stop for each second spelling.
    """
    first_of_key: dict[str, int] = {}
    seen: set[str] = set()
    cells = table.cells(column)
    for row, text in enumerate(cells):
        if text in seen:
            continue
        seen.add(text)
        first = first_of_key.setdefault(_key(text), row)
        if first != row:
            _note_alike(table, column, first, row, what, findings)


def _note_alike(
    table: Table, column: int, first: int, row: int, what: str, findings: Findings
) -> None:
    one, other = (_spelled(table.rows[i][column]) for i in (row, first))
    findings.stop(
        table.file,
        f"{one} differs from {other} in row {table.lines[first]} only by case, blanks or "
        "Unicode form",
        f"write {what} in one way",
        row=table.lines[row],
        column=printable(table.columns[column]),
    )


def _spelled(text: str) -> str:
    return repr(text) if text.isascii() else ascii(text)


def one_number(
    table: Table, column: int, values: np.ndarray, specimens: RowsBySpecimen, findings: Findings
) -> np.ndarray:
    """Return one value for each specimen; rows that leave it out do not contradict the others.

    Parameters
    ----------
    table : Table
    column : int
        Where the values stand, for the message.
    values : ndarray of shape (n_rows,), NaN where missing
    specimens : dict of str to list of int
    findings : Findings
        Gains a stop where two rows of one specimen differ.

    Returns
    -------
    ndarray of shape (n_specimens,), float64, NaN where missing
    """
    result = np.full(len(specimens), np.nan)
    for i, (specimen, rows) in enumerate(specimens.items()):
        measured = [row for row in rows if np.isfinite(values[row])]
        if measured:
            result[i] = values[measured[0]]
        for row in measured[1:]:
            if values[row] != result[i]:
                _note_conflict(table, column, specimen, measured[0], row, findings)
                break
    return result


def one_label(
    table: Table,
    column: int,
    specimens: RowsBySpecimen,
    findings: Findings,
    *,
    required: bool,
) -> list[str]:
    """Return one text for each specimen, noting rows of one specimen that differ."""
    cells = table.cells(column)
    result = []
    for specimen, rows in specimens.items():
        first = rows[0]
        try:
            if required or cells[first]:
                check_label(cells[first])
        except RefusedError as why:
            findings.refuse(
                table.file, why, row=table.lines[first], column=printable(table.columns[column])
            )
        other = _first_other(cells, rows)
        if other is not None:
            _note_conflict(table, column, specimen, first, other, findings)
        result.append(cells[first])
    return result


def _first_other(cells: Sequence[str], rows: Sequence[int]) -> int | None:
    return next((row for row in rows if cells[row] != cells[rows[0]]), None)


def _note_conflict(
    table: Table, column: int, specimen: str, first: int, other: int, findings: Findings
) -> None:
    one, two = (printable(table.rows[row][column].strip()) for row in (first, other))
    findings.stop(
        table.file,
        f"specimen {specimen!r} has {two!r} here and {one!r} in row {table.lines[first]}",
        "keep one value a specimen, or give the specimens two ids",
        row=table.lines[other],
        column=printable(table.columns[column]),
    )
