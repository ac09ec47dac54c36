"""The lab's table of tests: a CSV file, read strictly, as the text that stands in its cells."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from client.findings import Findings, RefusedError, printable
from client.reading.folder import regular_file_size
from client.settings import Data

MAX_BYTES = 2**28

_MARKS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
    (b"PK\x03\x04", "an Excel workbook"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
)
_SAVE = 'save it from the spreadsheet as "CSV UTF-8"'
_DELIMITERS = {";": '";"', "\t": r'"\t"', ",": '","', "|": '"|"'}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table as text.

    Attributes
    ----------
    file : str
        Its name in the lab's folder, printable.
    columns : tuple of str
        The headers, without blanks around them.
    rows : tuple of tuple of str
        As many cells each as there are columns.
    lines : tuple of int
        Where each row begins, as an editor counts: the header is usually line 1.
    header_line : int
    """

    file: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    header_line: int = 1

    def cells(self, column: int) -> list[str]:
        """Return one column, without blanks around the text."""
        return [row[column].strip() for row in self.rows]


def read_table(path: Path, data: Data, findings: Findings) -> Table | None:
    """Read a table, noting each reason to refuse it.

    Rows that are empty throughout are left out.

    Parameters
    ----------
    path : Path
    data : Data
        Of ``lab.toml``: `delimiter` matters here.
    findings : Findings
        Added to.

    Returns
    -------
    Table or None
        None if the table is refused.
    """
    file = printable(data.table)
    try:
        records = _records(_text(path), data.delimiter)
    except RefusedError as why:
        findings.refuse(file, why, row=getattr(why, "line", None))
        return None
    if not records:
        findings.stop(file, "is empty", "export the table again, with a header")
        return None
    header_line, header = records[0]
    columns = tuple(cell.strip() for cell in header)
    before = len(findings.stops)
    _check_header(file, columns, header_line, data, findings)
    if len(records) == 1:
        findings.stop(file, "has a header and no rows", "export the table again, with its rows")
    if len(findings.stops) == before:
        _check_lengths(file, records[1:], len(columns), findings)
    if len(findings.stops) > before:
        return None
    return Table(
        file=file,
        columns=columns,
        rows=tuple(tuple(cells) for _, cells in records[1:]),
        lines=tuple(line for line, _ in records[1:]),
        header_line=header_line,
    )


class _RefusedLineError(RefusedError):
    def __init__(self, found: str, action: str, line: int) -> None:
        super().__init__(found, action)
        self.line = line


def _text(path: Path) -> str:
    size = regular_file_size(path)
    if size > MAX_BYTES:
        raise RefusedError(f"has {size} bytes, over 256 MiB", "name the table of tests only")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RefusedError(f"cannot be read ({error.strerror})", "correct the file") from None
    for mark, what in _MARKS:
        if content.startswith(mark):
            raise RefusedError(f"is {what}, not UTF-8, by the mark at byte 0", _SAVE)
    start = 3 if content.startswith(b"\xef\xbb\xbf") else 0
    if (at := content.find(b"\0")) >= 0:
        raise _RefusedLineError(f"holds a NUL at byte {at}", _SAVE, _line(content, at))
    try:
        return content[start:].decode("utf-8")
    except UnicodeDecodeError as error:
        at = start + error.start
        raise _RefusedLineError(
            f"is not UTF-8 at byte {at} (0x{content[at]:02x})", _SAVE, _line(content, at)
        ) from None


def _line(content: bytes, at: int) -> int:
    return content.count(b"\n", 0, at) + 1


def _records(text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """Split into rows, each with the line on which it begins: a quoted cell may span lines."""
    records: list[tuple[int, list[str]]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise _RefusedLineError(
                f"has a quoted cell that does not end as it should ({error})",
                'close the quote, and double each " within a quoted cell',
                line,
            ) from None
        if cells is None:
            return records
        if any(cell.strip() for cell in cells):
            records.append((line, cells))


def _check_header(
    file: str, columns: tuple[str, ...], line: int, data: Data, findings: Findings
) -> None:
    if len(columns) == 1:
        for delimiter, written in _DELIMITERS.items():
            if delimiter in columns[0]:
                findings.stop(
                    file,
                    f"has one column only, and its header holds {written}",
                    f"write delimiter = {written} under [data] in lab.toml, and decimal if the "
                    "decimal sign is a comma",
                    row=line,
                )
                return
    for name, count in Counter(name for name in columns if name).items():
        if count > 1:
            findings.stop(
                file,
                f"has {count} columns of this name",
                "rename or remove all but one",
                row=line,
                column=printable(name),
            )


def _check_lengths(
    file: str, records: list[tuple[int, list[str]]], length: int, findings: Findings
) -> None:
    for line, cells in records:
        if len(cells) != length:
            findings.stop(
                file,
                f"has {len(cells)} cell(s), and the header has {length}",
                "give each row as many cells as the header; a cell that holds the delimiter "
                "needs quotes",
                row=line,
            )
