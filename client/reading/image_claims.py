"""Which files the specimens claim: none twice, none outside the folder, one at least for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from client.findings import Findings, first_few, printable
from client.reading.folder import Entry, leads_inside
from client.reading.specimen_rows import RowsBySpecimen
from client.reading.table import Table
from client.settings import FILE_NAME, Data


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """The folder with the images, within the lab's folder, and what lies in it."""

    lab: Path
    images: Path
    entries: Sequence[Entry]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A file that belongs to a specimen, and the rows of the table that say so."""

    entry: Entry
    rows: list[int] = field(default_factory=list)


def check_claims(
    claims: Mapping[str, Sequence[Claim]], folder: ImageFolder, findings: Findings
) -> dict[str, list[Claim]]:
    """Note files that two specimens claim, that lie elsewhere, or that no specimen claims.

    Parameters
    ----------
    claims : dict of str to list of Claim
        By specimen id.
    folder : ImageFolder
    findings : Findings
        Added to.

    Returns
    -------
    dict of str to list of Claim
        Without the files that must not be opened, because they lie elsewhere.
    """
    inside: dict[str, list[Claim]] = {specimen: [] for specimen in claims}
    owners: dict[str, str] = {}
    for specimen, of_specimen in claims.items():
        for claim in of_specimen:
            owner = owners.setdefault(claim.entry.name, specimen)
            if owner != specimen:
                findings.stop(
                    claim.entry.file,
                    f"belongs to specimen {owner!r} and to specimen {specimen!r}",
                    f"make image in {FILE_NAME} or the names more precise",
                )
            if claim.entry.is_link and not leads_inside(folder.lab, claim.entry.path):
                findings.stop(
                    claim.entry.file,
                    "is a symbolic link that leaves the data folder",
                    "copy the file into the data folder",
                )
            else:
                inside[specimen].append(claim)
    _note_unclaimed(folder, owners, findings)
    return inside


def check_without_image(
    table: Table,
    claims: Mapping[str, Sequence[Claim]],
    specimens: RowsBySpecimen,
    folder: ImageFolder,
    data: Data,
    findings: Findings,
) -> None:
    """Note the specimens that have no micrograph, in one finding if none has."""
    bare = [specimen for specimen, of_specimen in claims.items() if not of_specimen]
    if bare and len(bare) == len(claims):
        _note_no_image_at_all(folder, data, findings)
    elif bare and data.skip_without_image:
        findings.fix(
            table.file,
            f"{len(bare)} specimen(s) without a micrograph are left out: {first_few(bare)}",
            "nothing, if that is intended",
        )
    else:
        for specimen in bare:
            findings.stop(
                table.file,
                f"specimen {specimen!r} has no micrograph",
                f"add its image, or write skip_without_image = true under [data] in {FILE_NAME}",
                row=table.lines[specimens[specimen][0]],
            )


def _note_no_image_at_all(folder: ImageFolder, data: Data, findings: Findings) -> None:
    names = [printable(entry.name) for entry in folder.entries if entry.is_image]
    there = (
        f"the images there are called {first_few(names)}" if names else "there is no image there"
    )
    findings.stop(
        printable(data.images),
        "no specimen has a micrograph",
        f"correct image = {printable(data.image)!r} in {FILE_NAME}; {there}",
    )


def _note_unclaimed(folder: ImageFolder, owners: Mapping[str, str], findings: Findings) -> None:
    names = [
        printable(entry.name)
        for entry in folder.entries
        if entry.is_image and entry.name not in owners
    ]
    if names:
        findings.fix(
            printable(folder.images.name),
            f"{len(names)} image(s) belong to no specimen and are not used: {first_few(names)}",
            "add their specimens to the table, or nothing if that is intended",
        )
