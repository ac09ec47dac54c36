"""One cell of a table as a number: strict, so that nothing is guessed."""

from __future__ import annotations

import math
import re
from collections.abc import Collection

from client.findings import RefusedError, printable

_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_DATE = re.compile(
    rf"\d{{1,2}}[-/. ]({_MONTHS})[a-z]*\.?([-/. ]\d{{2,4}})?|({_MONTHS})[a-z]*[-/. ]\d{{1,4}}"
    r"|\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}",
    re.ASCII | re.IGNORECASE,
)
_THOUSANDS = re.compile(r"[+-]?\d{1,3}([,. '\u00a0\u202f]\d{3})+([,.]\d+)?", re.ASCII)
_NOT_A_NUMBER = {"nan", "inf", "+inf", "-inf", "infinity", "na", "n/a", "none", "null", "-", "?"}
_GENERAL_ACTION = "write a plain number, or leave the cell empty if it was not measured"


def parse_number(
    cell: str,
    *,
    decimal: str = ".",
    missing: Collection[str] = (),
    delimiter: str | None = None,
) -> float | None:
    """Read a cell as a number, or as missing.

    Python's own ``float`` takes ``1_000``, ``nan``, ``1e400`` and the digits of all scripts; a
    spreadsheet writes dates and thousands separators. All of these are refused here, since no
    guess about them is right in every lab.

    Parameters
    ----------
    cell : str
        Blanks around it are ignored; an empty cell is missing.
    decimal : str
        The decimal sign.
    missing : collection of str
        Further spellings of a missing value, as declared in ``lab.toml``.
    delimiter : str, optional
        The sign between the table's cells, which can be no decimal sign.

    Returns
    -------
    float or None
        Finite; None if missing.

    Raises
    ------
    RefusedError
        Says what the cell looks like instead.

    Examples
    --------
    >>> parse_number(" 12.5 "), parse_number("-3,5e-2", decimal=","), parse_number("")
    (12.5, -0.035, None)
    >>> parse_number("n.d.", missing=["n.d."]) is None
    True
    >>> parse_number("3-May")
    Traceback (most recent call last):
    ...
    client.findings.RefusedError: '3-May' is a date, not a number; format the column as text or \
number in the spreadsheet, and enter the value again
    """
    text = cell.strip()
    if not text or text in missing:
        return None
    if not _number(decimal).fullmatch(text):
        raise _why_not(text, decimal, delimiter)
    value = float(text.replace(decimal, "."))
    if math.isinf(value):
        raise RefusedError(f"{text!r} is too large for a number", _GENERAL_ACTION)
    if value == 0 and re.search("[1-9]", re.split("[eE]", text)[0]):
        raise RefusedError(f"{text!r} is too small to differ from zero", _GENERAL_ACTION)
    return value


def _number(decimal: str) -> re.Pattern[str]:
    sign = re.escape(decimal)
    return re.compile(rf"[+-]?([0-9]+({sign}[0-9]*)?|{sign}[0-9]+)([eE][+-]?[0-9]+)?")


def _why_not(text: str, decimal: str, delimiter: str | None) -> RefusedError:
    shown = repr(printable(text if len(text) <= 40 else text[:40] + "..."))
    if text.startswith("="):
        return RefusedError(f"{shown} is a formula, not a number", "export values, not formulas")
    if text.startswith("#"):
        return RefusedError(
            f"{shown} is a spreadsheet's error", "correct it, or leave the cell empty"
        )
    if text.lower() in _NOT_A_NUMBER:
        return RefusedError(
            f"{shown} is not a number",
            "if it stands for a value that was not measured, add it to missing = [...] under "
            "[data] in lab.toml",
        )
    if _DATE.fullmatch(text):
        return RefusedError(
            f"{shown} is a date, not a number",
            "format the column as text or number in the spreadsheet, and enter the value again",
        )
    if not text.isascii() and any(sign.isdigit() and not sign.isascii() for sign in text):
        return RefusedError(
            f"{shown} has digits other than 0 to 9", "write it with the digits 0 to 9"
        )
    if "_" in text:
        return RefusedError(f"{shown} has an underscore", "write the digits without separators")
    return _separators(text, shown, decimal, delimiter)


def _separators(text: str, shown: str, decimal: str, delimiter: str | None) -> RefusedError:
    other = "," if decimal == "." else "."
    declare = f'write decimal = "{other}" under [data] in lab.toml if the whole table uses it'
    if other == delimiter:
        declare = (
            f"correct the cell; or, if the whole table uses {other!r}, export it with semicolons, "
            f'and write delimiter = ";" and decimal = "{other}" under [data] in lab.toml'
        )
    if _THOUSANDS.fullmatch(text):
        return RefusedError(
            f"{shown} may have a thousands or a decimal separator",
            f"write it without thousands separators, and with the decimal sign {decimal!r}; "
            f"{declare}",
        )
    if _number(other).fullmatch(text):
        return RefusedError(
            f"{shown} has the decimal sign {other!r}, and {decimal!r} is declared",
            declare,
        )
    if text[0] in "\u2212\u2013":
        return RefusedError(f"{shown} begins with a dash", "write the minus sign as -")
    if re.match(r"[+-]?[0-9.,]+\s*[^\W\d]+", text):
        return RefusedError(f"{shown} has text after the number", "give the unit in lab.toml only")
    return RefusedError(f"{shown} is not a number", _GENERAL_ACTION)
