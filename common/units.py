"""Quantities with units: one registry, one conversion.

Units are read by pint (https://pint.readthedocs.io), extended by the Vickers hardness number.
HV has the dimension of a stress: 1 HV = 1 kgf/mm² = 9.80665 MPa (ISO 6507-1, before the
customary rounding), so that hardness in GPa and in HV can meet in one federation.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from common.errors import UnitError

if TYPE_CHECKING:
    # imported where a unit is met that `SYMBOLS` lacks, or converted
    import pint

SYMBOLS = {
    "MPa": "MPa",
    "GPa": "GPa",
    "kPa": "kPa",
    "Pa": "Pa",
    "ksi": "ksi",
    "HV": "HV",
    "m": "m",
    "mm": "mm",
    "um": "µm",
    "nm": "nm",
    "degC": "°C",
    "K": "K",
    "percent": "%",
    "dimensionless": "",
}
"""The units met most, and how pint prints them: to import it and build its registry takes a third
of a second, which is most of what reading a federation file takes."""

_SUPERSCRIPTS = {ord(sign): plain for sign, plain in zip("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789", strict=True)}
_RAISED = re.compile(r"[⁻⁰¹²³⁴-⁹]+")
_UNIT = re.compile(r"(?:[^\W_]|[µ°·%*/^(). -]){1,30}")
# pint writes these words as powers, and chains of them as towers of powers
_POWER_WORDS = re.compile("squared?|cubed|cubic|sq", re.IGNORECASE)
# only a name is raised, and only once, to a power of two digits
_POWER = re.compile(
    r"(?<=[^\W\d_]) ?(?:\*\*|\^) ?"
    r"(?:-?[0-9]{1,2}(?:\.[0-9]{1,2})?|\(-?[0-9]{1,2}(?:[./][0-9]{1,2})?\))"
    r"(?![0-9.]| *(?:\*\*|\^))"
)
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([A-Za-z]{1,12})")
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}


@lru_cache(maxsize=1)
def registry() -> pint.UnitRegistry[float]:
    """Return the registry of units that all of crossply shares."""
    import pint

    units: pint.UnitRegistry[float] = pint.UnitRegistry(autoconvert_offset_to_baseunit=True)
    units.define("HV = 9.80665 megapascal")
    return units


def check_unit(unit: str) -> str:
    """Return `unit` unchanged if the registry knows it.

    Raises
    ------
    UnitError
        If the unit is unknown.

    Examples
    --------
    >>> check_unit("GPa")
    'GPa'
    >>> check_unit("GigaPa")
    Traceback (most recent call last):
    ...
    common.errors.UnitError: unknown unit 'GigaPa'; write for example MPa, GPa, ksi, um, HV, \
degC or dimensionless
    """
    if unit in SYMBOLS:
        return unit
    message = (
        f"unknown unit {unit!r}; write for example MPa, GPa, ksi, um, HV, degC or dimensionless"
    )
    if not _may_be_a_unit(unit):
        raise UnitError(message)
    try:
        registry().Unit(unit)
    except Exception as error:
        # pint lets errors of its tokenizer through, so that no narrower class covers bad input
        raise UnitError(message) from error
    return unit


def _may_be_a_unit(text: str) -> bool:
    """Tell whether a text may be given to pint, which would compute ``9**9**9`` for hours."""
    plain = _RAISED.sub(lambda raised: f"^{raised[0].translate(_SUPERSCRIPTS)}", text)
    rest = _POWER.sub(" ", plain)
    is_spelled_like_one = _UNIT.fullmatch(plain) and not _POWER_WORDS.search(plain)
    return bool(is_spelled_like_one) and "**" not in rest and "^" not in rest


def symbol(unit: str) -> str:
    """Return a unit as it is printed; nothing for a number without one.

    Examples
    --------
    >>> symbol("um"), symbol("degC"), symbol("ksi"), symbol("HV"), symbol("dimensionless")
    ('µm', '°C', 'ksi', 'HV', '')
    """
    return SYMBOLS[unit] if unit in SYMBOLS else format(registry().Unit(unit), "~P")


def same_unit(one: str, other: str) -> bool:
    """Tell whether two spellings name one unit.

    Examples
    --------
    >>> same_unit("MPa", "N/mm^2"), same_unit("MPa", "GPa")
    (True, False)
    """
    try:
        return bool(np.isclose(convert(np.ones(1), one, other)[0], 1.0, rtol=1e-12))
    except UnitError:
        return False


def convert(values: np.ndarray, unit: str, to_unit: str) -> np.ndarray:
    """Convert an array of values from one unit to another.

    Parameters
    ----------
    values : ndarray of any shape, in `unit`
    unit, to_unit : str

    Returns
    -------
    ndarray of the same shape, float64, in `to_unit`

    Raises
    ------
    UnitError
        If a unit is unknown or the two have different dimensions.

    Examples
    --------
    >>> convert(np.array([1.0, 2.0]), "GPa", "MPa")
    array([1000., 2000.])
    >>> convert(np.array([451.0]), "degF", "degC").round(1)
    array([232.8])
    """
    check_unit(unit)
    check_unit(to_unit)
    if unit == to_unit:
        return np.array(values, dtype=np.float64)
    import pint

    try:
        quantity = registry().Quantity(np.array(values, dtype=np.float64), unit)
        return np.asarray(quantity.to(to_unit).magnitude, dtype=np.float64)
    except pint.DimensionalityError as error:
        raise UnitError(f"{unit!r} cannot be converted to {to_unit!r}: {error}") from error


def seconds(duration: str) -> float:
    """Return a duration such as ``"10 min"`` in seconds.

    Examples
    --------
    >>> seconds("10 min"), seconds("1.5 h")
    (600.0, 5400.0)
    >>> seconds("10")
    Traceback (most recent call last):
    ...
    common.errors.UnitError: '10' is not a duration; write for example "10 min" or "30 s"
    """
    message = f'{duration!r} is not a duration; write for example "10 min" or "30 s"'
    match = _DURATION.fullmatch(duration.strip())
    if match is None:
        raise UnitError(message)
    if match[2] in _SECONDS:
        return float(match[1]) * _SECONDS[match[2]]
    try:
        return float(registry().Quantity(duration).to("second").magnitude)
    except Exception as error:
        raise UnitError(message) from error


def in_brackets(unit: str) -> str:
    """Return a unit as it follows a name.

    Examples
    --------
    >>> in_brackets("degC"), in_brackets("dimensionless")
    (' (°C)', '')
    """
    return f" ({symbol(unit)})" if symbol(unit) else ""
