"""Which micrographs belong to which specimen: by a pattern of names, or by a column of names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from client.findings import Findings, RefusedError, printable
from client.reading.columns import find_column
from client.reading.folder import Entry, name_key, within
from client.reading.image_claims import Claim, ImageFolder, check_claims, check_without_image
from client.reading.image_pattern import ImagePattern, NameIndex
from client.reading.specimen_rows import RowsBySpecimen
from client.reading.table import Table
from client.settings import FILE_NAME, Data


def join_images(
    table: Table, specimens: RowsBySpecimen, folder: ImageFolder, data: Data, findings: Findings
) -> dict[str, list[Claim]]:
    """Find the files of each specimen.

    Returns
    -------
    dict of str to list of Claim
        By specimen id, files sorted by name; empty lists where a specimen has none.
    """
    has_braces = "{" in data.image or "}" in data.image
    named = _by_pattern if has_braces else _by_column
    before = len(findings.stops)
    rows = named(table, specimens, folder, data, findings)
    if rows is None:
        return {specimen: [] for specimen in specimens}
    is_complete = len(findings.stops) == before
    claims: dict[str, list[Claim]] = {}
    for specimen, of_specimen in specimens.items():
        found: dict[str, Claim] = {}
        for row in of_specimen:
            for entry in rows.get(row, ()):
                found.setdefault(entry.name, Claim(entry=entry)).rows.append(row)
        claims[specimen] = [found[name] for name in sorted(found)]
    inside = check_claims(claims, folder, findings)
    if is_complete:
        # where names were refused, the specimens without an image are their consequence
        check_without_image(table, claims, specimens, folder, data, findings)
    return inside


def _by_pattern(
    table: Table, specimens: RowsBySpecimen, folder: ImageFolder, data: Data, findings: Findings
) -> dict[int, list[Entry]] | None:
    try:
        pattern = ImagePattern(data.image)
    except RefusedError as why:
        findings.refuse(FILE_NAME, why, column="data.image")
        return None
    columns = {name: find_column(table, name, "data.image", findings) for name in pattern.columns}
    if None in columns.values():
        return None
    cells = {name: table.cells(column) for name, column in columns.items() if column is not None}
    by_name = {entry.name: entry for entry in folder.entries}
    index = NameIndex(list(by_name))
    result: dict[int, list[Entry]] = {}
    for row in _rows(specimens):
        empty = [name for name in columns if not cells[name][row]]
        if empty:
            # with nothing in its place, the pattern would take the images of other specimens
            findings.stop(
                table.file,
                "the cell is empty",
                "the name of the image needs it",
                row=table.lines[row],
                column=printable(empty[0]),
            )
            continue
        values = {name: cells[name][row] for name in columns}
        result[row] = [by_name[name] for name in pattern.matches(values, index)]
    return result


def _by_column(
    table: Table, specimens: RowsBySpecimen, folder: ImageFolder, data: Data, findings: Findings
) -> dict[int, list[Entry]] | None:
    column = find_column(table, data.image, "data.image", findings)
    if column is None:
        return None
    by_name = {entry.name: entry for entry in folder.entries}
    by_key = {name_key(entry.name): entry for entry in folder.entries}
    cells = table.cells(column)
    result: dict[int, list[Entry]] = {}
    for row in _rows(specimens):
        if not cells[row]:
            continue
        try:
            result[row] = [_named_entry(cells[row], folder, by_name, by_key)]
        except RefusedError as why:
            if why.found.endswith("is not there") and data.skip_without_image:
                continue
            findings.refuse(
                table.file, why, row=table.lines[row], column=printable(table.columns[column])
            )
            result[row] = []
    return result


def _named_entry(
    name: str, folder: ImageFolder, by_name: Mapping[str, Entry], by_key: Mapping[str, Entry]
) -> Entry:
    if name in by_name:
        return by_name[name]
    path = within(folder.lab, name, folder.images)
    relative = Path(os.path.relpath(path, folder.images)).as_posix()
    if relative in by_name:
        return by_name[relative]
    if os.path.lexists(path):
        file = printable(path.relative_to(folder.lab).as_posix())
        return Entry(name=relative, file=file, path=path, is_link=True)
    action = "correct the name, or put the file there"
    if (other := by_key.get(name_key(relative))) is not None:
        action = f"there is {other.name!a}: write the name in the same way"
    elif "\\" in name:
        action = "write / instead of \\ in file names"
    raise RefusedError(f"{printable(name)!r} is not there", action)


def _rows(specimens: RowsBySpecimen) -> Iterable[int]:
    return (row for rows in specimens.values() for row in rows)
