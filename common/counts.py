"""Numbers of specimens, rounded so that they say little."""

from __future__ import annotations


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
