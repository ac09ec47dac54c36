"""Targets, covariates, groups and scales of a lab's table, one value a specimen."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from client.findings import Findings, printable
from client.reading.columns import check_header_unit, find_column, read_numbers, split_header
from client.reading.plausibility import Quantity, check_values
from client.reading.specimen_rows import (
    RowsBySpecimen,
    check_spelling,
    one_label,
    one_number,
)
from client.reading.table import Table
from client.settings import FILE_NAME, LabSettings, Measured
from common.errors import UnitError
from common.federation import Covariate, Federation, Target
from common.units import convert


@dataclass(frozen=True, kw_only=True)
class LabTable:
    """The table with its rows grouped by specimen, and the file that says how to read it."""

    table: Table
    specimens: RowsBySpecimen
    settings: LabSettings

    @property
    def lines(self) -> tuple[int, ...]:
        """The first line of each specimen."""
        return tuple(self.table.lines[rows[0]] for rows in self.specimens.values())


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What the table says of each specimen; see :class:`client.dataset.Dataset`."""

    targets: np.ndarray
    covariates: np.ndarray
    split_groups: list[str] | None
    partition: list[str] | None

    @property
    def has_target(self) -> np.ndarray:
        """Which specimens have a value of one target at least; shape (n_specimens,), bool."""
        return np.asarray(np.isfinite(self.targets).any(axis=1))


def measure(lab: LabTable, federation: Federation, findings: Findings) -> Measurements:
    """Read all that the table says of each specimen, in the federation's units and order."""
    data, partition = lab.settings.data, lab.settings.partition
    targets = read_quantities(lab, "targets", federation.targets, findings)
    covariates = read_quantities(lab, "covariates", federation.covariates, findings)
    split_groups = virtual_labs = None
    if data.split_group is not None:
        split_groups = read_labels(
            lab, data.split_group, "data.split_group", findings, required=False
        )
    if partition is not None:
        virtual_labs = read_labels(
            lab, partition.column, "partition.column", findings, required=True
        )
    note_unused_columns(lab.table, lab.settings, findings)
    return Measurements(
        targets=targets, covariates=covariates, split_groups=split_groups, partition=virtual_labs
    )


def check_names(settings: LabSettings, federation: Federation, findings: Findings) -> None:
    """Note targets and covariates that the federation does not know, or asks for in vain."""
    for kind, ours, agreed in (
        ("targets", settings.targets, tuple(federation.targets)),
        ("covariates", settings.covariates, tuple(federation.covariates)),
    ):
        for name in ours:
            if name not in agreed:
                close = difflib.get_close_matches(name, agreed, n=1, cutoff=0.0)
                hint = f"the closest is {close[0]!r}" if close else f"it has no {kind}"
                findings.stop(
                    FILE_NAME,
                    f"the federation does not know {name!r}",
                    f"use a name of federation.toml; {hint}",
                    column=f"{kind}.{name}",
                )
    for name, covariate in federation.covariates.items():
        if name not in settings.covariates:
            findings.stop(
                FILE_NAME,
                f"the federation needs {name!r} for every specimen",
                f"write [covariates.{name}] with its column and unit (the federation has "
                f"{covariate.unit})",
                column=f"covariates.{name}",
            )


def read_quantities(
    lab: LabTable,
    kind: str,
    agreed: Mapping[str, Target | Covariate],
    findings: Findings,
) -> np.ndarray:
    """Read the targets or the covariates.

    Parameters
    ----------
    lab : LabTable
    kind : "targets" or "covariates"
        Covariates are required of each specimen.
    agreed : dict of str to Target or Covariate
        Of the federation; gives the order.
    findings : Findings
        Added to.

    Returns
    -------
    ndarray of shape (n_specimens, n_agreed), float64, in the federation's units
        NaN where missing; a column of NaN for a target that the lab does not have.
    """
    result = np.full((len(lab.specimens), len(agreed)), np.nan)
    ours = lab.settings.targets if kind == "targets" else lab.settings.covariates
    for i, (name, quantity) in enumerate(agreed.items()):
        if name in ours:
            result[:, i] = _read_one(lab, f"{kind}.{name}", ours[name], quantity, findings)
        elif kind == "targets":
            findings.passed(FILE_NAME, f"the lab does not measure {name}")
    return result


def _read_one(
    lab: LabTable,
    section: str,
    measured: Measured,
    agreed: Target | Covariate,
    findings: Findings,
) -> np.ndarray:
    table = lab.table
    column = find_column(table, measured.column, f"{section}.column", findings)
    if column is None:
        return np.full(len(lab.specimens), np.nan)
    before = len(findings.stops)
    check_header_unit(table, column, measured.unit, section, findings)
    is_sure_of_unit = len(findings.stops) == before
    values = read_numbers(
        table, column, lab.settings.data, findings, required=section.startswith("covariates.")
    )
    values = one_number(table, column, values, lab.specimens, findings)
    try:
        values = convert(values, measured.unit, agreed.unit)
    except UnitError:
        findings.stop(
            FILE_NAME,
            f"{measured.unit!r} does not convert to the federation's {agreed.unit!r}",
            "correct the unit or the column",
            column=f"{section}.unit",
        )
        return values
    quantity = Quantity(
        section=section,
        column=printable(table.columns[column]),
        unit=measured.unit,
        to_unit=agreed.unit,
        limits=agreed.range,
        values=values,
        lines=lab.lines,
    )
    if is_sure_of_unit:
        check_values(quantity, table.file, findings)
    if len(findings.stops) == before:
        findings.passed(table.file, _summary(section, quantity))
    return values


def _summary(section: str, quantity: Quantity) -> str:
    kind, _, name = section.partition(".")
    values = quantity.values[np.isfinite(quantity.values)]
    intro = f"{kind.removesuffix('s')} {name}: {len(values)} values"
    if not len(values):
        return intro
    low, middle, high = np.min(values), np.median(values), np.max(values)
    return f"{intro}, {low:.4g} to {quantity.shown(high)}, median {middle:.4g}"


def read_labels(
    lab: LabTable, column_name: str, key: str, findings: Findings, *, required: bool
) -> list[str] | None:
    """Read a column of names, such as the batch or the virtual lab of each specimen."""
    column = find_column(lab.table, column_name, key, findings)
    if column is None:
        return None
    labels = one_label(lab.table, column, lab.specimens, findings, required=required)
    if required:
        check_spelling(lab.table, column, "the name of a lab", findings)
    empty = labels.count("")
    if empty and not required:
        findings.fix(
            lab.table.file,
            f"{empty} specimen(s) have no value here, and each is split by itself",
            "fill the cells, if these specimens share material",
            column=printable(lab.table.columns[column]),
        )
    return labels


def note_unused_columns(table: Table, settings: LabSettings, findings: Findings) -> None:
    """List the columns that ``lab.toml`` does not name."""
    data = settings.data
    used: set[object] = {data.specimen, data.image, data.um_per_px, data.split_group}
    used |= {measured.column for measured in settings.targets.values()}
    used |= {measured.column for measured in settings.covariates.values()}
    used |= {settings.partition.column} if settings.partition else set()
    used |= set(re.findall(r"\{\s*([^{}]*?)\s*\}", data.image))
    unused = [
        printable(header) or "(unnamed)"
        for header in table.columns
        if header not in used and split_header(header)[0] not in used
    ]
    if unused:
        findings.passed(table.file, f"columns not used: {', '.join(unused)}")
