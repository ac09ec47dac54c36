"""Text of the other side, made safe to show."""

from __future__ import annotations

MAX_LENGTH = 300


def printable(text: str) -> str:
    r"""Return text with what cannot be printed escaped, cut to a few lines.

    Examples
    --------
    >>> print(printable("bad\x1b[2J name"))
    bad\x1b[2J name
    """
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return shown if len(shown) <= MAX_LENGTH else shown[:MAX_LENGTH] + "…"
