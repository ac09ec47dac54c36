"""Are the values of a column possible, and plausible: physical limits, units, outliers."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np

from client.findings import Findings
from client.settings import FILE_NAME
from common.errors import UnitError
from common.units import convert

TOO_HIGH, LOW, TOO_LOW = 10.0, 1e-3, 1e-4
"""Shares of the upper limit at which not some values but the unit of all is doubted.

Too low is a reason to stop only where a mix-up of usual units explains the values."""
NUM_MADS = 5.0
MIN_VALUES_FOR_OUTLIERS = 10
_UNITS = ("GPa", "MPa", "kPa", "Pa", "ksi", "psi", "HV", "m", "mm", "um", "nm")


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A target or covariate, one value a specimen.

    Attributes
    ----------
    section : str
        Of ``lab.toml``, such as ``targets.strength``.
    column : str
        Its header, printable.
    unit : str
        In which the table has it.
    to_unit : str
        The federation's; `limits` and `values` are in it.
    limits : tuple of float
    values : ndarray of shape (n_specimens,), NaN where missing
    lines : tuple of int
        Line of the table of each specimen.
    """

    section: str
    column: str
    unit: str
    to_unit: str
    limits: tuple[float, float]
    values: np.ndarray
    lines: tuple[int, ...]

    def shown(self, value: float) -> str:
        """Return a value with the federation's unit."""
        return f"{value:.5g}" + ("" if self.to_unit == "dimensionless" else f" {self.to_unit}")

    @property
    def limits_shown(self) -> str:
        """The limits with their unit."""
        return f"{self.limits[0]:g} to {self.shown(self.limits[1])}"

    @property
    def is_target(self) -> bool:
        """Whether it is to be predicted."""
        return self.section.startswith("targets.")


def check_values(quantity: Quantity, file: str, findings: Findings) -> None:
    """Note values that are impossible (stop) or doubtful (fix), in the federation's unit."""
    measured = np.isfinite(quantity.values)
    if not measured.any():
        return
    values = quantity.values[measured]
    if _doubt_the_unit(quantity, values, file, findings):
        return
    if quantity.is_target and len(values) > 1 and np.ptp(values) == 0:
        findings.stop(
            file,
            f"all {len(values)} values are {quantity.shown(values[0])}",
            "a constant cannot be learnt; correct the column, or remove the target from lab.toml",
            column=quantity.column,
        )
        return
    _check_each(quantity, file, findings)


def _doubt_the_unit(quantity: Quantity, values: np.ndarray, file: str, findings: Findings) -> bool:
    """Note a median far from what is expected; tell whether it refuses the column."""
    upper = max(abs(limit) for limit in quantity.limits)
    median = float(np.median(values))
    share = abs(median) / upper
    is_low = quantity.is_target and 0 < share < LOW
    if share <= TOO_HIGH and not is_low:
        return False
    # a range may be wide, as that of fatigue lives is: low values alone prove nothing
    # strength, modulus and hardness do not span three decades below a federation's limit
    too_low = LOW if "MPa" in _sizes(quantity.to_unit) else TOO_LOW
    is_certain = share > TOO_HIGH or (
        share < too_low and _is_a_mix_up_of_units(quantity, median, upper)
    )
    action = f"check unit under [{quantity.section}] in {FILE_NAME}"
    if suited := _suited_unit(quantity, median, upper):
        action = (
            f'is the column in {suited}? Then write unit = "{suited}" under '
            f"[{quantity.section}] in {FILE_NAME}"
        )
    note = findings.stop if is_certain else findings.fix
    note(
        file,
        f"the median is {quantity.shown(median)}, far {'below' if is_low else 'above'} what "
        f"the federation expects ({quantity.limits_shown})",
        action,
        column=quantity.column,
    )
    return is_certain


def _suited_unit(quantity: Quantity, median: float, upper: float) -> str | None:
    """Return the unit that the column is most likely in, or None if no usual one explains it.

    Mistakes by a power of a thousand, such as MPa for GPa, come before all others; then what
    brings the median closest below the upper limit.
    """
    written = abs(float(convert(np.array([median]), quantity.to_unit, quantity.unit)[0]))
    declared = float(convert(np.ones(1), quantity.unit, quantity.to_unit)[0])
    suited = [
        (not _is_power_of_1000(size / declared), -written * size, unit)
        for unit, size in _sizes(quantity.to_unit).items()
        if LOW * upper < written * size <= upper
    ]
    return min(suited)[-1] if suited else None


def _is_power_of_1000(ratio: float) -> bool:
    thousands = np.log10(ratio) / 3
    return bool(np.isclose(thousands, np.round(thousands)))


def _is_a_mix_up_of_units(quantity: Quantity, median: float, upper: float) -> bool:
    """Tell whether taking one usual unit for another, here or before, explains a median."""
    sizes = _sizes(quantity.to_unit).values()
    return any(LOW * upper < abs(median) * one / other <= upper for one in sizes for other in sizes)


def _sizes(to_unit: str) -> dict[str, float]:
    """Return the usual units of one dimension, in `to_unit`; none for a number without unit."""
    sizes = {}
    for unit in _UNITS:
        with contextlib.suppress(UnitError):
            sizes[unit] = float(convert(np.ones(1), unit, to_unit)[0])
    return sizes


def _check_each(quantity: Quantity, file: str, findings: Findings) -> None:
    lower, upper = quantity.limits
    outlying = _outlying(quantity.values)
    for value, line, is_outlying in zip(
        quantity.values, quantity.lines, outlying.tolist(), strict=True
    ):
        shown = quantity.shown(value)
        if value < lower or value > upper:
            findings.stop(
                file,
                f"{shown} is outside {quantity.limits_shown}",
                "correct the value, or leave the cell empty; the limits are the federation's",
                line,
                quantity.column,
            )
        elif quantity.is_target and value == 0:
            findings.fix(
                file,
                "the value is zero",
                "leave the cell empty if it was not measured",
                line,
                quantity.column,
            )
        elif quantity.is_target and is_outlying:
            findings.fix(
                file,
                f"{shown} is more than {NUM_MADS:g} MAD from the median",
                "check the value against the test record",
                line,
                quantity.column,
            )


def _outlying(values: np.ndarray) -> np.ndarray:
    """Tell which values are more than `NUM_MADS` median absolute deviations from the median."""
    measured = values[np.isfinite(values)]
    if len(measured) < MIN_VALUES_FOR_OUTLIERS:
        return np.zeros(len(values), dtype=bool)
    distance = np.abs(values - np.median(measured))
    spread = float(np.median(distance[np.isfinite(values)]))
    return np.asarray((distance > NUM_MADS * spread) & (spread > 0))
