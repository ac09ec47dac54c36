"""Reading the CSV table: rows, lines, headers, numbers."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.findings import Findings, Level, RefusedError
from client.reading.cells import parse_number
from client.reading.columns import check_header_unit, find_column, read_numbers, split_header
from client.reading.table import Table, read_table
from client.settings import Data, LabSettings
from common.configuration import Section, override, parse, read_toml
from common.errors import ConfigurationError

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


@pytest.mark.parametrize(
    ("key", "sign"),
    [
        *(("delimiter", sign) for sign in ('"', "'", "7", "e", "\n", "\r", "\u2028", "", ";;")),
        *(("decimal", sign) for sign in (";", "1", "", "..")),
    ],
)
def test_a_sign_that_separates_nothing(key: str, sign: str) -> None:
    with pytest.raises(ConfigurationError, match=f"data.{key}|{key}"):
        parse(Data, DATA.model_dump() | {key: sign}, "lab.toml")


@pytest.mark.parametrize("sign", [",", ";", "\t", "|", " "])
def test_signs_that_separate(sign: str) -> None:
    assert DATA.replace(delimiter=sign).delimiter == sign


def test_one_sign_for_both_is_refused_with_what_to_do() -> None:
    message = 'data: delimiter and decimal are both .*write delimiter = ";", else export'
    settings = {"data": DATA.model_dump() | {"decimal": ","}, "targets": {}}
    with pytest.raises(ConfigurationError, match=message):
        parse(LabSettings, settings, "lab.toml")


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


@pytest.mark.parametrize(
    ("header", "unit"),
    [("E (L)", "GPa"), ("strength (T)", "MPa"), ("diameter (min)", "um"), ("E (kg)", "MPa")],
)
def test_a_unit_of_another_dimension_is_a_label(header: str, unit: str) -> None:
    findings = Findings()
    check_header_unit(table_of(header), 0, unit, "targets.E", findings)
    (finding,) = findings.items
    assert finding.level is Level.FIX and "read as a label" in finding.found


def test_a_unit_of_the_same_dimension_is_no_label() -> None:
    findings = Findings()
    check_header_unit(table_of("cure (min)"), 0, "s", "covariates.cure", findings)
    assert 'write unit = "min"' in findings.stops[0].action


@pytest.mark.usefixtures("in_bounded_time")
@pytest.mark.parametrize(
    "text",
    [
        "9**9**9**9",
        "9^9^9^9",
        "9\u2079\u2079\u2079\u2079\u2079\u2079\u2079\u2079\u2079\u2079",
        "(((9^99)^99)^99)^99",
        "m^9^9^9^9^9",
        "9 cubed cubed cubed cubed cubed",
        "m^999999999",
        "m" * 31,
        "a_b",
        "m;m",
    ],
)
def test_what_is_no_unit_does_not_reach_pint(text: str) -> None:
    assert split_header(f"x ({text})") == (f"x ({text})", None)


@pytest.mark.parametrize(
    "unit",
    [
        "N/mm\u00b2",
        "N/mm**2",
        "MPa m^(1/2)",
        "MPa*m^0.5",
        "m\u207b\u00b9",
        "W/(m K)",
        "%",
        "\u00b5m",
    ],
)
def test_units_with_powers_in_headers(unit: str) -> None:
    assert split_header(f"x [{unit}]") == ("x", unit)


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


# --- TOML files --------------------------------------------------------------------------------


class Typed(Section):
    count: int = 1
    share: float = 0.5
    is_on: bool = False
    pair: tuple[float, float] | None = None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("count", True),
        ("count", 2.0),
        ("count", "2"),
        ("share", True),
        ("share", "0.5"),
        ("share", 10**400),
        ("is_on", 1),
        ("is_on", "yes"),
        ("pair", [0, True]),
        pytest.param("share", int("f" * 5000, 16), id="endless"),
    ],
)
def test_a_value_of_another_type_is_refused(key: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=rf"^x.toml: {key}.*, found "):
        parse(Typed, {key: value}, "x.toml")


def test_an_integer_is_a_number_and_a_list_becomes_a_tuple() -> None:
    typed = parse(Typed, {"share": 1, "pair": [0, 3]}, "x.toml")
    assert repr(typed) == "Typed(count=1, share=1.0, is_on=False, pair=(0.0, 3.0))"
    with pytest.raises(ConfigurationError, match="found True"):
        parse(Typed, override({}, ["count=true"]), "x.toml")


@pytest.mark.usefixtures("in_bounded_time")
def test_what_is_no_regular_file_is_not_read_as_toml(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "folder.toml").mkdir()
    for path in (tmp_path / "pipe.toml", tmp_path / "folder.toml", Path("/dev/zero")):
        with pytest.raises(ConfigurationError, match=f"{path}: not a regular file"):
            read_toml(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"#" * (2**20 + 1), "over 1 MiB"),
        (b"a = " + b"[" * 10_000, "not valid TOML"),
        (b"a = " + b"9" * 5000, "not valid TOML"),
        (b"a = \xff", "not UTF-8 at byte 4"),
    ],
)
def test_a_toml_file_that_is_none(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        read_toml(tmp_path / "x.toml")


def test_an_endless_assignment_is_text() -> None:
    text = "[" * 10_000
    assert override({}, [f"a={text}", "b=" + "9" * 5000]) == {"a": text, "b": "9" * 5000}
