"""Numbers that are told: rounded so that they say little, and how many specimens are held out."""

from __future__ import annotations

import numpy as np

HELD_OUT_ONE_IN = 3
"""A lab holds out one specimen in so many at most: a fifth of them, by whole groups."""


def bucketed(count: int) -> int:
    """Round a count down to 1, 2 or 5 times a power of ten, which says little about one lab.

    Examples
    --------
    >>> [bucketed(count) for count in (1, 19, 57, 480)]
    [1, 10, 50, 200]
    """
    power = int(10 ** (len(str(count)) - 1))
    leading = count // power
    return (5 if leading >= 5 else 2 if leading >= 2 else 1) * power


def in_digits(values: np.ndarray, digits: int) -> np.ndarray:
    """Round numbers to so many significant digits.

    Examples
    --------
    >>> in_digits(np.array([35.449, 0.0, -612.7]), 2)
    array([  35.,    0., -610.])
    """
    rounded = [float(f"{value:.{digits - 1}e}") for value in np.ravel(values)]
    return np.array(rounded, dtype=np.float64).reshape(np.shape(values))


def largest_behind(count: int) -> int:
    """Return the largest count that may stand behind one that was told, rounded or as it is.

    Examples
    --------
    >>> [largest_behind(count) for count in (1, 10, 20, 50, 57)]
    [1, 19, 49, 99, 57]
    """
    if bucketed(count) != count:
        return count
    return (5 * count // 2 if str(count)[0] == "2" else 2 * count) - 1
