"""A lab's folder as one data set: read, checked, joined by specimen id. No pixels are kept."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client.findings import Findings, RefusedError, first_few, printable
from client.reading.columns import find_column
from client.reading.folder import check_names as check_file_names
from client.reading.folder import list_entries, within
from client.reading.image_check import check_micrographs
from client.reading.image_claims import ImageFolder
from client.reading.image_files import Micrograph, note_equal_images
from client.reading.measurements import LabTable, Measurements, check_names, measure
from client.reading.specimen_rows import group_rows
from client.reading.table import Table, read_table
from client.settings import FILE_NAME, LabSettings, load_settings
from common.federation import Federation

__all__ = ["Dataset", "Micrograph", "check_folder", "load_dataset"]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What a lab brings: specimens, their micrographs and what was measured on them.

    Attributes
    ----------
    name : str
        From ``lab.toml``, else that of the folder.
    folder : Path
    settings : LabSettings
    specimens : tuple of str
        Ids in the order of the table; each has a micrograph and a value of one target at least.
    micrographs : tuple of tuple of Micrograph
        For each specimen, sorted by name.
    targets : ndarray of shape (n_specimens, n_targets), float64
        In the federation's units and order; NaN where missing.
    covariates : ndarray of shape (n_specimens, n_covariates), float64
        In the federation's units and order.
    groups : ndarray of shape (n_specimens,), int64
        Specimens with one number stay on one side of a split: they share material or an image.
    partition : tuple of str, or None
        The virtual lab of each specimen, in a pooled data set.
    """

    name: str
    folder: Path
    settings: LabSettings
    specimens: tuple[str, ...]
    micrographs: tuple[tuple[Micrograph, ...], ...]
    targets: np.ndarray
    covariates: np.ndarray
    groups: np.ndarray
    partition: tuple[str, ...] | None


def load_dataset(folder: Path, federation: Federation) -> Dataset:
    """Read a lab's folder, without decoding its micrographs.

    Raises
    ------
    ConfigurationError
        If ``lab.toml`` is wrong.
    LabDataError
        If the folder is refused; lists the first reasons.
    """
    dataset, findings = check_folder(folder, federation, decode=False)
    findings.raise_if_stopped(str(folder))
    assert dataset is not None, "without a reason to stop there is a data set"
    return dataset


def check_folder(
    folder: Path, federation: Federation, *, decode: bool
) -> tuple[Dataset | None, Findings]:
    """Read and check a lab's folder.

    Parameters
    ----------
    folder : Path
        Holds ``lab.toml``.
    federation : Federation
    decode : bool
        Whether to decode each micrograph too, which finds damaged and doubtful ones.

    Returns
    -------
    Dataset or None
        None if there is a reason to stop.
    Findings

    Raises
    ------
    ConfigurationError
        If ``lab.toml`` is wrong.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100  (without .., links not followed)
    settings = load_settings(folder)
    findings = Findings()
    check_names(settings, federation, findings)
    table = _open_table(folder, settings, findings)
    images = _open_images(folder, settings, findings)
    if table is None:
        return None, findings
    lab = _group(table, settings, findings)
    if lab is None or not lab.specimens:
        return None, findings
    measured = measure(lab, federation, findings)
    if images is None:
        return None, findings
    micrographs = check_micrographs(lab, images, federation, findings, decode=decode)
    equal = note_equal_images(micrographs, folder, findings)
    if findings.stops:
        return None, findings
    pictured = [i for i, specimen in enumerate(lab.specimens) if micrographs[specimen]]
    _note_usable(lab, pictured, measured, findings)
    dataset = _assemble(folder, lab, measured, micrographs, equal)
    labs = {measured.partition[i] for i in pictured} if measured.partition else {dataset.name}
    _check_counts(dataset, labs, federation, findings)
    return (None if findings.stops else dataset), findings


def _open_table(folder: Path, settings: LabSettings, findings: Findings) -> Table | None:
    try:
        path = within(folder, settings.data.table)
    except RefusedError as why:
        findings.refuse(FILE_NAME, why, column="data.table")
        return None
    return read_table(path, settings.data, findings)


def _open_images(folder: Path, settings: LabSettings, findings: Findings) -> ImageFolder | None:
    try:
        path = within(folder, settings.data.images)
        # unlike Path.is_dir, this is False where the parent must not be read
        if not os.path.isdir(path):  # noqa: PTH112
            raise RefusedError(
                f"{printable(settings.data.images)!r} is not a folder", "correct its name"
            )
        entries = list_entries(path, folder)
    except RefusedError as why:
        findings.refuse(FILE_NAME, why, column="data.images")
        return None
    check_file_names(entries, findings)
    return ImageFolder(lab=folder, images=path, entries=entries)


def _group(table: Table, settings: LabSettings, findings: Findings) -> LabTable | None:
    column = find_column(table, settings.data.specimen, "data.specimen", findings)
    if column is None:
        return None
    specimens = group_rows(table, column, findings)
    return LabTable(table=table, specimens=specimens, settings=settings)


def _assemble(
    folder: Path,
    lab: LabTable,
    measured: Measurements,
    micrographs: Mapping[str, tuple[Micrograph, ...]],
    equal: Iterable[tuple[str, str]],
) -> Dataset:
    """Put the parts together, without the specimens that lack a micrograph or all targets."""
    specimens = list(lab.specimens)
    kept = [i for i in np.flatnonzero(measured.has_target).tolist() if micrographs[specimens[i]]]
    groups = _number_groups(specimens, measured.split_groups, equal)
    partition = measured.partition
    return Dataset(
        name=printable(lab.settings.name or folder.name),
        folder=folder,
        settings=lab.settings,
        specimens=tuple(specimens[i] for i in kept),
        micrographs=tuple(micrographs[specimens[i]] for i in kept),
        targets=measured.targets[kept],
        covariates=measured.covariates[kept],
        groups=np.unique(groups[kept], return_inverse=True)[1].astype(np.int64),
        partition=None if partition is None else tuple(partition[i] for i in kept),
    )


def _number_groups(
    specimens: Sequence[str], split_groups: Sequence[str] | None, equal: Iterable[tuple[str, str]]
) -> np.ndarray:
    """Give one number to specimens that share a split group, an image, or both by a chain."""
    row = {specimen: i for i, specimen in enumerate(specimens)}
    parent = list(range(len(specimens)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first_of: dict[str, int] = {}
    for i, group in enumerate(split_groups or ()):
        if group:
            parent[root(i)] = root(first_of.setdefault(group, i))
    for one, other in equal:
        parent[root(row[other])] = root(row[one])
    return np.array([root(i) for i in range(len(specimens))], dtype=np.int64)


def _note_usable(
    lab: LabTable, pictured: Sequence[int], measured: Measurements, findings: Findings
) -> None:
    """Note which specimens with a micrograph are of no use, since nothing was measured."""
    specimens = list(lab.specimens)
    without = [specimens[i] for i in pictured if not measured.has_target[i]]
    if without:
        findings.fix(
            lab.table.file,
            f"{len(without)} specimen(s) without a value of any target are left out: "
            f"{first_few(without)}",
            "nothing, if that is intended",
        )
    usable = len(pictured) - len(without)
    if usable:
        findings.passed(
            lab.table.file,
            f"{usable} of {len(specimens)} specimens can be used: they have a micrograph and a "
            "value of a target",
        )


def _check_counts(
    dataset: Dataset, labs: Iterable[str], federation: Federation, findings: Findings
) -> None:
    """Note which of `labs`, the lab itself or the virtual ones, has too few specimens left."""
    least, file = federation.privacy.min_specimens, printable(dataset.settings.data.table)
    counts = Counter(dict.fromkeys(labs, 0))
    counts.update(dataset.partition or [dataset.name] * len(dataset.specimens))
    if dataset.partition is not None:
        shown = ", ".join(f"{lab} ({count})" for lab, count in sorted(counts.items()))
        findings.passed(file, f"{len(counts)} virtual labs: {shown}")
    for lab, count in sorted(counts.items()):
        if count < least:
            findings.stop(
                file,
                f"{printable(lab)!r} has {count} specimen(s) with a target, too few to join: the "
                f"federation asks for {least}",
                "add specimens; local work is possible with a federation.toml of your own",
            )
