"""The names that enrolment gives to labs, and those of labs that a model's card does not name."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import count

LAB_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
"""What others read of a lab that is enrolled: no free text."""

UNNAMED_LAB = re.compile(r"unnamed lab [1-9][0-9]{0,4}")


def unnamed_labs(taken: Collection[str]) -> Iterator[str]:
    """Return names for labs without one, in order, and none that a lab has.

    Where nobody enrols, on Flower's own engine, a lab may call itself anything.

    Examples
    --------
    >>> found = unnamed_labs({"aachen", "unnamed lab 2"})
    >>> next(found), next(found)
    ('unnamed lab 1', 'unnamed lab 3')
    """
    made = (f"unnamed lab {number}" for number in count(1))
    return (name for name in made if name not in taken)
