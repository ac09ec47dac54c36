"""Reading the CSV table: rows, lines, headers, numbers."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.findings import Findings, RefusedError
from client.reading.cells import parse_number
from client.reading.columns import check_header_unit, find_column, read_numbers, split_header
from client.reading.table import Table, read_table
from client.settings import Data

DATA = Data(table="t.csv", images=".", specimen="id", image="{id}.png")


def read(folder: Path, text: str, data: Data = DATA) -> tuple[Table | None, Findings]:
    findings = Findings()
    (folder / "t.csv").write_bytes(text.encode())
    return read_table(folder / "t.csv", data, findings), findings


def table_of(*columns: str) -> Table:
    return Table(file="t.csv", columns=columns, rows=(("1",) * len(columns),), lines=(2,))


def test_rows_know_the_lines_on_which_they_begin(tmp_path: Path) -> None:
    table, _ = read(tmp_path, 'id,note\r\nS1,"one\r\ntwo"\r\n\r\n,\r\nS2,"say ""hi"""\r\n')
    assert table is not None
    assert table.rows == (("S1", "one\r\ntwo"), ("S2", 'say "hi"'))
    assert table.lines == (2, 6)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_all_ends_of_lines_are_read(tmp_path: Path, end: str) -> None:
    table, _ = read(tmp_path, end.join(["id,x", "S1,1", "S2,2", ""]))
    assert table is not None
    assert table.lines == (2, 3)


def test_a_line_separator_in_a_cell_is_no_end_of_line(tmp_path: Path) -> None:
    table, _ = read(tmp_path, "id,x\nS1,a\u2028b\nS2,\x0b\n")
    assert table is not None
    assert table.lines == (2, 3)


def test_a_declared_delimiter(tmp_path: Path) -> None:
    table, _ = read(tmp_path, "id;x\nS1;1,5\n", DATA.replace(delimiter=";", decimal=","))
    assert table is not None
    assert table.rows == (("S1", "1,5"),)


def test_a_missing_file(tmp_path: Path) -> None:
    findings = Findings()
    assert read_table(tmp_path / "t.csv", DATA, findings) is None
    assert findings.stops[0].found == "no such file"


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        ("strength (MPa)", ("strength", "MPa")),
        ("strength[N/mm²]", ("strength", "N/mm²")),
        ("T (°C)", ("T", "°C")),
        ("strength (mean) [GPa]", ("strength (mean)", "GPa")),
        ("strength (mean)", ("strength (mean)", None)),
        ("(MPa)", ("(MPa)", None)),
        ("strength", ("strength", None)),
    ],
)
def test_units_in_headers(header: str, parts: tuple[str, str | None]) -> None:
    assert split_header(header) == parts


def test_a_name_with_two_columns_is_ambiguous() -> None:
    findings = Findings()
    table = table_of("id", "E (GPa)", "E [MPa]")
    assert find_column(table, "E", "targets.E.column", findings) is None
    assert "may be 'E (GPa)' or 'E [MPa]'" in findings.stops[0].found
    assert find_column(table, "E [MPa]", "targets.E.column", findings) == 2


def test_a_unit_of_another_dimension() -> None:
    findings = Findings()
    check_header_unit(table_of("E (kg)"), 0, "MPa", "targets.E", findings)
    assert findings.stops[0].action.startswith("kg does not convert to MPa")


def test_a_column_of_numbers(tmp_path: Path) -> None:
    table, findings = read(tmp_path, "id,x\nS1, 1.5 \nS2,\nS3,n.d.\nS4,-2e-3\n")
    assert table is not None
    data = DATA.replace(missing=["n.d."])
    values = read_numbers(table, 1, data, findings, required=False)
    np.testing.assert_array_equal(values, [1.5, np.nan, np.nan, -0.002])
    assert not findings.stops


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_read_back(value: float) -> None:
    assert parse_number(repr(value)) == value
    assert parse_number(repr(value).replace(".", ","), decimal=",") == value


@given(st.text())
def test_what_is_no_plain_number_is_refused(text: str) -> None:
    try:
        value = parse_number(text)
    except RefusedError as why:
        assert why.found and why.action
        return
    assert value is None if not text.strip() else text.strip().isascii()
