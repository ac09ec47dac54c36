"""Every row of the list of bad lab data, each with real files: level, place and message."""

from __future__ import annotations

import errno
import hashlib
import inspect
import io
import os
import re
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from client.findings import Finding, Level
from client.reading.folder import list_entries

# tests/conftest.py has no name that could be imported; `lab` is its LabFolder
Lab = Any
Damage = Callable[[Lab], None]


def only(findings: list[Finding], message: str) -> Finding:
    """Return the one finding, whose message matches."""
    assert len(findings) == 1, [finding.sentence() for finding in findings]
    assert re.search(message, f"{findings[0].found}; {findings[0].action}"), findings[0].sentence()
    return findings[0]


def place(finding: Finding) -> tuple[str, int | None, str | None]:
    return finding.file, finding.row, finding.column


def texture(seed: int = 0, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 255, (height, width), dtype=np.uint8)


def pillow(path: Path, image: Image.Image, format_: str, **options: Any) -> None:
    content = io.BytesIO()
    image.save(content, format_, **options)
    path.write_bytes(content.getvalue())


def use_tiffs(lab: Lab, **data: Any) -> Path:
    """Let the lab's images be of any format, with S01 still to be written as a TIFF."""
    (lab.images / "S01.png").unlink()
    lab.settings["data"] |= {"image": "{id}.*", **data}
    lab.write_toml()
    path: Path = lab.images / "S01.tif"
    return path


def test_a_good_folder_passes(lab: Lab) -> None:
    dataset, findings = lab.check()
    assert dataset is not None
    assert {finding.level for finding in findings} == {Level.PASS}
    assert dataset.specimens[:2] == ("S01", "S02")
    assert dataset.targets[0].tolist() == [503.0, 70.5]
    assert dataset.micrographs[0][0].name == "S01.png"


# --- the file of the table ---------------------------------------------------------------------


def test_byte_order_mark_and_crlf_are_accepted(lab: Lab) -> None:
    lab.table.write_bytes(b"\xef\xbb\xbf" + lab.table.read_bytes().replace(b"\n", b"\r\n"))
    dataset, _ = lab.check()
    assert dataset is not None and len(dataset.specimens) == 24


@pytest.mark.parametrize(
    ("change", "row", "message"),
    [
        (lambda text: text.encode("utf-16"), None, r"UTF-16, not UTF-8, by the mark at byte 0"),
        (lambda text: text.encode("utf-16-le"), 1, r"NUL at byte 1"),
        (
            lambda text: text.replace("S02", "S\u00fc2").encode("latin-1"),
            3,
            r"not UTF-8 at byte 34 \(0xfc\)",
        ),
        (lambda text: b"", None, "is empty"),
        (lambda text: b"\n \n", None, "is empty"),
        (lambda text: text.split("\n")[0].encode(), None, "header and no rows"),
        (lambda text: text.replace("S03,509", "S03,509,1").encode(), 4, "has 4 cell"),
        (lambda text: text.replace("S03,509,71.5", "S03,509").encode(), 4, "has 2 cell"),
        (lambda text: text.replace("S03", '"S03').encode(), 4, "quoted cell"),
        (lambda text: text.replace("S03", '"S"03').encode(), 4, "quoted cell"),
        (lambda text: text.replace("S03", "S\x0003").encode(), 4, "holds a NUL at byte"),
        (lambda text: b"PK\x03\x04" + text.encode(), None, "is an Excel workbook"),
    ],
)
def test_a_table_that_is_no_csv(
    lab: Lab, change: Callable[[str], bytes], row: int | None, message: str
) -> None:
    lab.table.write_bytes(change(lab.table.read_text()))
    assert place(only(lab.stops(), message)) == ("tests.csv", row, None)


def test_lines_are_counted_as_an_editor_does(lab: Lab) -> None:
    lab.add_column("note", ["two\nlines", *[""] * 23])
    lab.set_cell(3, "strength", "strong")
    lab.write()
    assert only(lab.stops(), "not a number").row == 4


def test_semicolons_and_decimal_commas_must_be_declared(lab: Lab) -> None:
    text = lab.table.read_text().replace(",", ";").replace(".", ",")
    lab.table.write_text(text)
    finding = only(lab.stops(), r'write delimiter = ";" under \[data\]')
    assert place(finding) == ("tests.csv", 1, None)
    lab.settings["data"]["delimiter"] = ";"
    lab.write_toml()
    stops = lab.stops()
    assert len(stops) == 24
    assert place(stops[0]) == ("tests.csv", 2, "modulus")
    assert 'write decimal = ","' in stops[0].action
    lab.settings["data"]["decimal"] = ","
    lab.write_toml()
    dataset, _ = lab.check()
    assert dataset is not None and dataset.targets[0, 1] == 70.5


@pytest.mark.parametrize("cell", ["512,5", "1,234"])
def test_a_decimal_comma_among_commas_is_corrected_or_exported_anew(lab: Lab, cell: str) -> None:
    lab.set_cell(5, "strength", cell)
    lab.write()
    action = only(lab.stops(), repr(cell)).action
    assert 'export it with semicolons, and write delimiter = ";" and decimal = ","' in action


@pytest.mark.parametrize("name", ["../tests.csv", "/etc/passwd", "link.csv"])
def test_the_table_must_lie_in_the_folder(lab: Lab, name: str) -> None:
    (lab.path.parent / "tests.csv").write_bytes(lab.table.read_bytes())
    (lab.path / "link.csv").symlink_to("../tests.csv")
    lab.settings["data"]["table"] = name
    lab.write_toml()
    finding = only(lab.stops(), "leads out|absolute|symbolic link")
    assert place(finding) == ("lab.toml", None, "data.table")


@pytest.mark.usefixtures("in_bounded_time")
def test_a_named_pipe_as_table(lab: Lab) -> None:
    lab.table.unlink()
    os.mkfifo(lab.table)
    assert only(lab.stops(), "is a named pipe").file == "tests.csv"


# --- headers and units -------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["strength (MPa)", "strength [N/mm^2]", "strength"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_unit_in_the_header_that_agrees(lab: Lab, header: str, whole: bool) -> None:
    lab.header[1] = header
    lab.settings["targets"]["strength"]["column"] = header if whole else "strength"
    lab.write()
    assert lab.stops() == []


def test_a_header_with_another_unit(lab: Lab) -> None:
    lab.header[1] = "strength (ksi)"
    lab.write()
    finding = only(lab.stops(), r'write unit = "ksi" under \[targets.strength\]')
    assert place(finding) == ("tests.csv", 1, "strength (ksi)")
    lab.settings["targets"]["strength"]["unit"] = "ksi"
    lab.federation["targets"]["strength"]["range"] = [0, 9000]
    lab.write()
    dataset, _ = lab.check()
    assert dataset is not None
    assert dataset.targets[0, 0] == pytest.approx(503 * 6.894757)


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (1000, r'the median is 76250 GPa, far above .*0 to 400 GPa.*Then write unit = "MPa"'),
        (1e-6, r"far below"),
    ],
)
def test_a_median_out_by_powers_of_ten(lab: Lab, factor: float, message: str) -> None:
    for row in lab.rows:
        row[2] = f"{float(row[2]) * factor:.9g}"
    lab.write()
    assert place(only(lab.stops(), message)) == ("tests.csv", None, "modulus")


@pytest.mark.parametrize("unit", ["GPa", "MPa"])
def test_mpa_where_gpa_was_meant(lab: Lab, unit: str) -> None:
    """9 GPa read as 0.009: by a wrong unit in lab.toml, or by a conversion made before."""
    for row in lab.rows:
        row[2] = f"{float(row[2]) * 9 / 76 * (0.001 if unit == 'GPa' else 1):.9g}"
    lab.settings["targets"]["modulus"]["unit"] = unit
    lab.write()
    finding = only(lab.stops(), r"the median is 0.009\d* GPa, far below .*0 to 400 GPa")
    assert place(finding) == ("tests.csv", None, "modulus")


@pytest.mark.parametrize("unit", ["dimensionless", "hour"])
def test_a_range_may_be_wide(lab: Lab, unit: str) -> None:
    lab.federation["targets"]["life"] = {"unit": unit, "range": [0, 1e9]}
    lab.settings["targets"]["life"] = {"column": "life", "unit": unit}
    lab.add_column("life", [f"{54_000 + 50 * i}" for i in range(24)])
    lab.write()
    assert place(only(lab.fixes(), "far below")) == ("tests.csv", None, "life")


def test_labels_in_headers_are_no_units(lab: Lab) -> None:
    """T and L mean transverse and longitudinal; to pint they are tesla and litre."""
    lab.header[1:] = ["strength (T)", "modulus (L)"]
    lab.write()
    assert [place(fix) for fix in lab.fixes()] == [
        ("tests.csv", 1, "strength (T)"),
        ("tests.csv", 1, "modulus (L)"),
    ]


@pytest.mark.usefixtures("in_bounded_time")
def test_a_header_that_is_a_tower_of_powers(lab: Lab) -> None:
    lab.add_column("x (9**9**9**9)", ["1"] * 24)
    lab.write()
    assert lab.fixes() == []


def test_gpa_where_mpa_was_meant_stops(lab: Lab) -> None:
    for row in lab.rows:
        row[1] = f"{float(row[1]) / 1000:.6f}"
    lab.write()
    finding = only(lab.stops(), r'is the column in GPa\? Then write unit = "GPa"')
    assert place(finding) == ("tests.csv", None, "strength")


def test_a_missing_column(lab: Lab) -> None:
    lab.header[1] = "strenght"
    lab.write()
    finding = only(lab.stops(), "no such column.*the closest is 'strenght'")
    assert place(finding) == ("tests.csv", 1, "strength")


def test_a_doubled_column(lab: Lab) -> None:
    lab.add_column("strength", ["1"] * 24)
    lab.write()
    assert place(only(lab.stops(), "2 columns of this name")) == ("tests.csv", 1, "strength")


def test_an_extra_column_is_ignored_and_listed(lab: Lab) -> None:
    lab.add_column("operator", ["Kim"] * 24)
    lab.write()
    _, findings = lab.check()
    assert "columns not used: operator" in [finding.found for finding in findings]
    assert not any("Kim" in finding.sentence() for finding in findings)


# --- ids ---------------------------------------------------------------------------------------


def test_one_specimen_twice_with_different_values(lab: Lab) -> None:
    lab.rows.append(["S01", "999", "70.5"])
    lab.write()
    finding = only(lab.stops(), "'S01' has '999' here and '503' in row 2")
    assert place(finding) == ("tests.csv", 26, "strength")


def test_one_specimen_twice_with_the_same_values(lab: Lab) -> None:
    lab.rows.append(["S01", "503", ""])
    lab.write()
    dataset, _ = lab.check()
    assert dataset is not None and len(dataset.specimens) == 24
    assert dataset.targets[0].tolist() == [503.0, 70.5]


@pytest.mark.parametrize(
    ("one", "other"),
    [("S01", "s01"), ("S01", "S 01"), ("S01", "S01 "), ("caf\u00e9", "cafe\u0301")],
)
def test_ids_that_look_alike(lab: Lab, one: str, other: str) -> None:
    lab.set_cell(2, "id", one)
    lab.set_cell(3, "id", other)
    lab.write()
    finding = next(stop for stop in lab.stops() if "only by case" in stop.found)
    assert place(finding) == ("tests.csv", 3, "id")
    assert "in row 2" in finding.found


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "@SUM(A1)", "+S1", "", "S\x0701"])
def test_ids_that_another_program_would_run_or_garble(lab: Lab, text: str) -> None:
    lab.set_cell(3, "id", text)
    lab.write()
    finding = only(lab.stops(), "like a formula|is empty|cannot be printed")
    assert place(finding) == ("tests.csv", 3, "id")


# --- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("1,234", "thousands or a decimal separator"),
        ("-5", "-5 MPa is outside 0 to 3000 MPa"),
        ("3001", "3001 MPa is outside"),
        ("1e400", "too large for a number"),
        ("1e-400", "too small"),
        ("1_000", "has an underscore"),
        ("\u0665\u0660\u0660", "digits other than 0 to 9"),
        ("\uff15\uff10\uff10", "digits other than 0 to 9"),
        ("3-May", "is a date"),
        ("2024-05-03", "is a date"),
        ("03.05.24", "is a date"),
        ("May-24", "is a date"),
        ("NaN", r"add it to missing = \[...\]"),
        ("inf", r"add it to missing = \[...\]"),
        ("N/A", r"add it to missing = \[...\]"),
        ("#DIV/0!", "spreadsheet's error"),
        ("=B2*2", "is a formula"),
        ("512 MPa", "text after the number"),
        ("\u2212512", "begins with a dash"),
        ("0x1F", "text after the number|not a number"),
        ("about 5", "not a number"),
        ("1e", "text after|not a number"),
        ("12.5.1", "not a number"),
    ],
)
def test_a_cell_that_is_no_possible_number(lab: Lab, cell: str, message: str) -> None:
    lab.set_cell(5, "strength", cell)
    lab.write()
    assert place(only(lab.stops(), message)) == ("tests.csv", 5, "strength")


@pytest.mark.parametrize("token", ["NaN", "inf", "N/A", "-999", "not tested"])
def test_a_missing_value_that_is_declared(lab: Lab, token: str) -> None:
    lab.set_cell(5, "strength", token)
    lab.settings["data"]["missing"] = [token]
    lab.write()
    dataset, _ = lab.check()
    assert dataset is not None
    assert np.isnan(dataset.targets[3, 0]) and dataset.targets[3, 1] == 72.0


@pytest.mark.parametrize(
    ("cell", "message"), [("0", "the value is zero"), ("2900", "more than 5 MAD from the median")]
)
def test_a_doubtful_number(lab: Lab, cell: str, message: str) -> None:
    lab.set_cell(5, "strength", cell)
    lab.write()
    assert place(only(lab.fixes(), message)) == ("tests.csv", 5, "strength")


def test_a_constant_target(lab: Lab) -> None:
    for row in lab.rows:
        row[1] = "500"
    lab.write()
    assert place(only(lab.stops(), "all 24 values are 500 MPa")) == ("tests.csv", None, "strength")


def test_too_few_specimens_to_join(lab: Lab) -> None:
    lab.federation["privacy"]["min_specimens"] = 25
    lab.write()
    finding = only(lab.stops(), "24 specimen.* too few to join.*local work is possible")
    assert finding.file == "tests.csv"


def test_too_few_specimens_in_one_lab_of_a_pooled_set(lab: Lab) -> None:
    lab.add_column("site", ["A"] * 22 + ["B"] * 2)
    lab.settings["partition"] = {"column": "site"}
    lab.write()
    only(lab.stops(), "'B' has 2 specimen.* too few to join")


def test_a_target_that_the_federation_does_not_know(lab: Lab) -> None:
    lab.settings["targets"]["strenght"] = {"column": "strength", "unit": "MPa"}
    lab.write()
    finding = only(lab.stops(), "the closest is 'strength'")
    assert place(finding) == ("lab.toml", None, "targets.strenght")


def test_a_covariate_is_needed_of_every_specimen(lab: Lab) -> None:
    lab.federation["covariates"] = {"cure": {"unit": "degC", "range": [0, 400]}}
    lab.write()
    finding = only(lab.stops(), "needs 'cure' for every specimen")
    assert place(finding) == ("lab.toml", None, "covariates.cure")
    lab.settings["covariates"] = {"cure": {"column": "cure", "unit": "degF"}}
    lab.add_column("cure", ["", *["356"] * 23])
    lab.write()
    assert place(only(lab.stops(), "the value is missing")) == ("tests.csv", 2, "cure")


# --- files of images ---------------------------------------------------------------------------


def test_a_symbolic_link_that_leaves_the_folder(lab: Lab) -> None:
    outside = lab.path.parent / "outside.png"
    (lab.images / "S02.png").rename(outside)
    (lab.images / "S02.png").symlink_to(outside)
    finding = only(lab.stops(), "symbolic link that leaves the data folder")
    assert finding.file == "images/S02.png"


def test_a_symbolic_link_within_the_folder(lab: Lab) -> None:
    (lab.images / "S02.png").rename(lab.path / "elsewhere.png")
    (lab.images / "S02.png").symlink_to("../elsewhere.png")
    assert lab.stops() == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../../outside.png", "leads out of the data folder"),
        ("{outside}", "is an absolute path"),
        ("link.png", "symbolic link that leaves"),
        ("folder/outside.png", "symbolic link that leaves"),
        ("S99.png", "is not there"),
        ("s02.PNG", r"there is 'S02.png': write the name in the same way"),
        ("sub\\S02.png", r"write / instead of"),
    ],
)
def test_a_name_in_the_table_that_leads_elsewhere(lab: Lab, name: str, message: str) -> None:
    outside = lab.path.parent / "outside.png"
    outside.write_bytes((lab.images / "S02.png").read_bytes())
    (lab.images / "link.png").symlink_to(outside)
    (lab.images / "folder").symlink_to(lab.path.parent, target_is_directory=True)
    lab.add_column("file", [f"{row[0]}.png" for row in lab.rows])
    lab.set_cell(3, "file", name.format(outside=outside))
    lab.settings["data"]["image"] = "file"
    lab.write()
    finding = only(lab.stops(), message)
    # the name of a link is a file's own, and not only that of a cell
    assert place(finding) in (("tests.csv", 3, "file"), ("images/link.png", None, None))


@pytest.mark.usefixtures("in_bounded_time")
@pytest.mark.parametrize("kind", ["a named pipe", "a folder", "a device", "a socket"])
def test_something_else_in_place_of_an_image(lab: Lab, kind: str) -> None:
    path = lab.images / "S02.png"
    path.unlink()
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a device":
        try:
            os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))
        except PermissionError:
            pytest.skip("this user may not make devices")
    else:
        os.mknod(path, 0o600 | 0o140000)
    assert only(lab.stops(), f"is {kind}").file == "images/S02.png"


def forbid(monkeypatch: pytest.MonkeyPatch, owner: Any, function: str, forbidden: Path) -> None:
    """Refuse one path as the system does; a test that runs as root cannot take away the right."""
    allowed = getattr(owner, function)

    def refuse(path: Any, *arguments: Any, **named: Any) -> Any:
        if os.fspath(path) == os.fspath(forbidden):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
        return allowed(path, *arguments, **named)

    monkeypatch.setattr(owner, function, refuse)


def test_a_folder_that_must_not_be_read(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    (lab.images / "old").mkdir()
    forbid(monkeypatch, os, "scandir", lab.images / "old")
    finding = only(lab.stops(), r"'images/old/' cannot be read \(Permission denied\)")
    assert place(finding) == ("lab.toml", None, "data.images")


def test_checksums_that_must_not_be_read(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.settings["data"]["checksums"] = "SHA256SUMS"
    lab.write_toml()
    (lab.path / "SHA256SUMS").touch()
    forbid(monkeypatch, Path, "read_bytes", lab.path / "SHA256SUMS")
    finding = only(lab.stops(), r"cannot be read \(Permission denied\)")
    assert place(finding) == ("SHA256SUMS", None, "data.checksums")


def test_folders_in_folders_do_not_exhaust_the_stack(lab: Lab) -> None:
    deep = lab.images / "/".join("d" * 300)
    deep.mkdir(parents=True)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 150)
    try:
        entries = list_entries(lab.images, lab.path)
    finally:
        sys.setrecursionlimit(limit)
    assert len(entries) == 24


@pytest.mark.parametrize(
    ("name", "shown"), [(b"S02\xff.png", r"S02\udcff.png"), (b"S02\x1b[2J.png", r"S02\x1b[2J.png")]
)
def test_a_name_that_garbles_the_terminal(lab: Lab, name: bytes, shown: str) -> None:
    (lab.images / "S02.png").rename(lab.images / os.fsdecode(name))
    lab.settings["data"]["image"] = "{id}*.png"
    lab.write_toml()
    assert (
        only(lab.stops(), "control characters or bytes that are not UTF-8").file
        == f"images/{shown}"
    )


@pytest.mark.parametrize(
    ("one", "other"), [("a.png", "A.PNG"), ("caf\u00e9.png", "cafe\u0301.png")]
)
def test_names_that_differ_only_by_case_or_form(lab: Lab, one: str, other: str) -> None:
    lab.write_image(one, texture(90))
    lab.write_image(other, texture(91))
    finding = only(lab.stops(), "only by case or Unicode form")
    assert finding.file in (f"images/{one}", f"images/{other}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda lab: (lab.images / "S03.png").read_bytes()[:0], "is empty"),
        (lambda lab: b"GIF89a" + bytes(40), "is a GIF file"),
        (lambda lab: b"not an image at all", "is not a TIFF, PNG, JPEG or BMP file"),
    ],
)
def test_content_that_is_no_image(lab: Lab, content: Callable[[Lab], bytes], message: str) -> None:
    (lab.images / "S02.png").write_bytes(content(lab))
    assert only(lab.stops(), message).file == "images/S02.png"


def test_extension_and_content_that_disagree(lab: Lab) -> None:
    pillow(lab.images / "S02.png", Image.fromarray(texture()), "JPEG")
    finding = only(lab.stops(), "holds a JPEG image, and its extension is '.png'")
    assert finding.file == "images/S02.png"


@pytest.mark.parametrize(
    ("width", "height"), [(10_001, 10_000), (30_001, 1), (2**31 - 1, 2**31 - 1)]
)
def test_a_png_too_large_to_decode(lab: Lab, width: int, height: int) -> None:
    chunks = [
        b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0),
        b"IDAT" + zlib.compress(bytes(1000)),
        b"IEND",
    ]
    (lab.images / "S02.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
            for chunk in chunks
        )
    )
    finding = only(lab.stops(), f"has {width} x {height} px, more than 100 million")
    assert finding.file == "images/S02.png"


def test_a_tiff_too_large_to_decode(lab: Lab) -> None:
    path = use_tiffs(lab)
    tifffile.imwrite(path, texture(1))
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for tag in ("ImageWidth", "ImageLength"):
            tiff.pages[0].tags[tag].overwrite(20_000)  # type: ignore[union-attr]
    assert only(lab.stops(), "has 20000 x 20000 px").file == "images/S01.tif"


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "BMP", "TIFF", "TIFF zlib", "TIFF LZW"])
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.99])
def test_a_truncated_image(lab: Lab, format_: str, kept: float) -> None:
    (lab.images / "S02.png").unlink()
    lab.settings["data"]["image"] = "{id}.*"
    lab.write_toml()
    kind, _, compression = format_.partition(" ")
    path = lab.images / {"PNG": "S02.png", "JPEG": "S02.jpg", "BMP": "S02.bmp"}.get(kind, "S02.tif")
    options = {"zlib": {"compression": "tiff_adobe_deflate"}, "LZW": {"compression": "tiff_lzw"}}
    pillow(path, Image.fromarray(texture(2)), kind, **options.get(compression, {}))
    assert lab.stops() == []
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    assert only(lab.stops(), "truncated|damaged|cannot be read").file == f"images/{path.name}"


def test_a_flipped_bit_is_found_by_the_checksums(lab: Lab) -> None:
    pillow(lab.images / "S02.bmp", Image.fromarray(texture(2)), "BMP")
    (lab.images / "S02.png").unlink()
    lab.settings["data"] |= {"image": "{id}.*", "checksums": "SHA256SUMS"}
    lab.write_toml()
    files = [lab.table, *sorted(lab.images.iterdir())]
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(lab.path)}\n"
        for file in files
    ]
    (lab.path / "SHA256SUMS").write_text("".join(lines))
    assert lab.fixes() == []
    content = bytearray((lab.images / "S02.bmp").read_bytes())
    content[-100] ^= 1
    (lab.images / "S02.bmp").write_bytes(content)
    assert only(lab.stops(), "differs from its checksum").file == "images/S02.bmp"
    (lab.path / "SHA256SUMS").write_text("nonsense\n")
    assert place(only(lab.stops(), "not a SHA-256")) == ("SHA256SUMS", 1, None)


def test_a_sixteen_bit_image_is_accepted(lab: Lab) -> None:
    lab.write_image("S02.png", texture(2).astype(np.uint16) * 256)
    assert lab.fixes() == []


def test_a_sixteen_bit_image_above_its_declared_depth(lab: Lab) -> None:
    lab.write_image("S02.png", texture(2).astype(np.uint16) * 256)
    lab.settings["data"]["bit_depth"] = 12
    lab.write_toml()
    assert (
        only(lab.stops(), r"holds the grey value \d+, and 12 bits reach 4095").file
        == "images/S02.png"
    )


def test_a_twelve_bit_image_is_remarked_on(lab: Lab) -> None:
    lab.write_image("S02.png", texture(2).astype(np.uint16) * 16)
    assert only(lab.fixes(), "write bit_depth = 12").file == "images/S02.png"
    lab.settings["data"]["bit_depth"] = 12
    lab.write_toml()
    assert lab.fixes() == []


def test_a_tiff_of_several_pages_needs_a_page(lab: Lab) -> None:
    path = use_tiffs(lab)
    tifffile.imwrite(path, np.stack([texture(1), texture(2)]), photometric="minisblack")
    assert only(lab.stops(), r"has 2 pages; write page = 0").file == "images/S01.tif"
    lab.settings["data"]["page"] = 1
    lab.write_toml()
    assert lab.stops() == []
    lab.settings["data"]["page"] = 2
    lab.write_toml()
    only(lab.stops(), r"lab.toml declares page = 2")


def test_a_float_tiff(lab: Lab) -> None:
    path = use_tiffs(lab)
    pixels = texture(1).astype(np.float32) / 100
    tifffile.imwrite(path, pixels)
    assert only(lab.stops(), r"float32 pixels .* write intensity_range").file == "images/S01.tif"
    lab.settings["data"]["intensity_range"] = [0.0, 2.56]
    lab.write_toml()
    assert lab.stops() == []
    pixels[3, 4] = np.nan
    tifffile.imwrite(path, pixels)
    assert only(lab.stops(), "NaN or infinite pixels").file == "images/S01.tif"


def test_colour_images(lab: Lab) -> None:
    lab.write_image("S01.png", np.repeat(texture(1)[..., None], 3, axis=2))
    assert lab.fixes() == []
    lab.write_image("S01.png", np.stack([texture(1), texture(2), texture(3)], axis=2))
    assert only(lab.fixes(), "colour image").file == "images/S01.png"


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_an_alpha_channel(lab: Lab, mode: str) -> None:
    image = Image.fromarray(texture(1)).convert(mode)
    pillow(lab.images / "S01.png", image, "PNG")
    assert lab.stops() == []
    image.putalpha(100)
    pillow(lab.images / "S01.png", image, "PNG")
    assert only(lab.stops(), "transparent pixels").file == "images/S01.png"


@pytest.mark.parametrize(("name", "format_"), [("S01.jpg", "JPEG"), ("S01.tif", "TIFF")])
def test_cmyk(lab: Lab, name: str, format_: str) -> None:
    use_tiffs(lab)
    pillow(lab.images / name, Image.fromarray(texture(1)).convert("CMYK"), format_)
    assert only(lab.stops(), "CMYK").file == f"images/{name}"


def test_an_exif_rotation_is_applied_and_remarked_on(lab: Lab) -> None:
    use_tiffs(lab)
    exif = Image.Exif()
    exif[0x0112] = 6
    pillow(lab.images / "S01.jpg", Image.fromarray(texture(1)), "JPEG", exif=exif)
    assert only(lab.fixes(), "turned by its EXIF orientation 6").file == "images/S01.jpg"


def test_names_and_places_in_exif_are_never_shown(lab: Lab) -> None:
    use_tiffs(lab)
    exif = Image.Exif()
    exif[0x013B], exif[0x010E] = "Operator Kim", "secret project"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 9.0)})
    pillow(lab.images / "S01.jpg", Image.fromarray(texture(1)), "JPEG", exif=exif)
    dataset, findings = lab.check()
    assert dataset is not None
    everything = repr(dataset) + "".join(finding.sentence() for finding in findings)
    assert not any(text in everything for text in ("Kim", "secret", "48.0"))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full((48, 64), 99, np.uint8), "is blank"),
        (np.where(texture(1) < 60, 255, texture(1)), "is saturated: 2[0-9]% .* white"),
        (np.where(texture(1) < 250, 0, texture(1)), "is saturated: 9[0-9]% .* black"),
    ],
)
def test_a_blank_or_saturated_image(lab: Lab, pixels: np.ndarray, message: str) -> None:
    lab.write_image("S01.png", pixels.astype(np.uint8))
    assert only(lab.fixes(), message).file == "images/S01.png"


def test_an_image_smaller_than_one_tile(lab: Lab) -> None:
    lab.write_image("S01.png", texture(1, 31, 40))
    assert only(lab.stops(), "less than one tile of 32 px").file == "images/S01.png"


def test_an_image_smaller_than_one_tile_after_rescaling(lab: Lab) -> None:
    lab.federation["imaging"] = {"scale": "physical", "um_per_px": 1.0, "tile_px": 32}
    lab.settings["data"]["um_per_px"] = 0.5
    lab.write()
    stops = lab.stops()
    assert len(stops) == 24
    assert "less than one tile" in stops[0].found


def test_the_same_image_under_two_specimens(lab: Lab) -> None:
    (lab.images / "S07.png").write_bytes((lab.images / "S03.png").read_bytes())
    finding = only(lab.fixes(), "same image as S03.png of specimen 'S03'.*one side of each split")
    assert finding.file == "images/S07.png"
    dataset, _ = lab.check()
    assert dataset is not None
    assert dataset.groups[2] == dataset.groups[6]
    assert len(set(dataset.groups.tolist())) == 23


def test_a_specimen_without_an_image(lab: Lab) -> None:
    (lab.images / "S05.png").unlink()
    finding = only(lab.stops(), "'S05' has no micrograph.*skip_without_image = true")
    assert place(finding) == ("tests.csv", 6, None)
    lab.settings["data"]["skip_without_image"] = True
    lab.write_toml()
    only(lab.fixes(), r"1 specimen\(s\) without a micrograph are left out: S05")
    dataset, _ = lab.check()
    assert dataset is not None and len(dataset.specimens) == 23


def test_an_image_without_a_specimen(lab: Lab) -> None:
    lab.write_image("S98.png", texture(98))
    lab.write_image("S99.png", texture(99))
    assert only(lab.fixes(), r"2 image\(s\) belong to no specimen.* S98.png, S99.png")


def test_no_image_at_all_is_one_finding(lab: Lab) -> None:
    lab.settings["data"]["image"] = "{id}.tif"
    lab.write_toml()
    only(lab.stops(), "no specimen has a micrograph.*images there are called S01.png")


def test_an_image_of_two_specimens(lab: Lab) -> None:
    lab.set_cell(3, "id", "S0")
    lab.settings["data"]["image"] = "{id}*.png"
    lab.set_cell(4, "id", "S")
    lab.write()
    assert any("belongs to specimen" in stop.found for stop in lab.stops())


def test_a_scale_that_is_missing(lab: Lab) -> None:
    lab.federation["imaging"] = {"scale": "physical", "um_per_px": 1.0, "tile_px": 32}
    lab.write()
    finding = only(lab.stops(), "scale of the micrographs is missing")
    assert place(finding) == ("lab.toml", None, "data.um_per_px")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("", "the value is missing"),
        ("0", "0 µm per px is no scale"),
        ("-1", "no scale"),
        ("x", "x"),
    ],
)
def test_a_scale_that_is_no_scale(lab: Lab, cell: str, message: str) -> None:
    lab.federation["imaging"] = {"scale": "physical", "um_per_px": 1.0, "tile_px": 32}
    lab.add_column("scale", [cell, *["1.0"] * 23])
    lab.settings["data"]["um_per_px"] = "scale"
    lab.write()
    assert place(only(lab.stops(), message)) == ("tests.csv", 2, "scale")


# --- anything at all ---------------------------------------------------------------------------

ANYTHING = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
STARTS = [
    b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"BM", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08",
    b"II+\0\x08\0\0\0",
]  # fmt: skip


@ANYTHING
@given(content=st.binary(max_size=300))
def test_any_bytes_as_a_table_become_findings(lab: Lab, content: bytes) -> None:
    lab.table.write_bytes(content)
    assert lab.stops()


@ANYTHING
@given(text=st.text(max_size=300))
def test_any_text_as_a_table_becomes_findings(lab: Lab, text: str) -> None:
    lab.table.write_text("id,strength,modulus\n" + text, encoding="utf-8", errors="replace")
    assert lab.stops()


@ANYTHING
@given(cell=st.text(max_size=20))
def test_any_cell_becomes_a_number_or_a_finding(lab: Lab, cell: str) -> None:
    lab.set_cell(4, "strength", cell)
    text = "\n".join(",".join(row) for row in [lab.header, *lab.rows])
    lab.table.write_text(text, encoding="utf-8", errors="replace", newline="")
    lab.check(decode=False)


@ANYTHING
@given(start=st.sampled_from(STARTS), content=st.binary(max_size=200))
def test_any_bytes_as_an_image_become_findings(lab: Lab, start: bytes, content: bytes) -> None:
    names = {"S02.png", "S02.jpg", "S02.bmp", "S02.tif"}
    for name in names:
        (lab.images / name).write_bytes(start + content)
    lab.settings["data"]["image"] = "{id}.*"
    lab.write_toml()
    assert {stop.file for stop in lab.stops()} == {f"images/{name}" for name in names}


@ANYTHING
@given(data=st.data())
def test_a_damaged_image_never_escapes(lab: Lab, data: st.DataObject) -> None:
    image = Image.fromarray(texture(2))
    for name, format_ in (("S02.png", "PNG"), ("S03.jpg", "JPEG"), ("S04.tif", "TIFF")):
        pillow(lab.images / name, image, format_)
        content = bytearray((lab.images / name).read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        (lab.images / name).write_bytes(content)
    lab.settings["data"]["image"] = "{id}.*"
    lab.write_toml()
    lab.check()
