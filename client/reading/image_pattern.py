"""Patterns of image names with ``{Column}`` placeholders, such as ``{SpecimenID}*.png``."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from client.findings import RefusedError, printable
from client.settings import FILE_NAME

_PART = re.compile(r"\{([^{}]*)\}|(\*+|\?)|(\[!?[^\]/]+\])|([^{}*?\[]+|\[)|(.)", re.DOTALL)
_LAST = "\U0010ffff"

Kind: TypeAlias = Literal["text", "column", "wildcard"]


@dataclass(frozen=True)
class _Part:
    kind: Kind
    text: str


class NameIndex:
    """File names in order, so that those with a known beginning or end are found at once."""

    def __init__(self, names: Sequence[str]) -> None:
        self._forward = sorted(names)
        self._backward = sorted(name[::-1] for name in names)

    def candidates(self, start: str, end: str) -> list[str]:
        """Return the names that begin with `start` or, where that is empty, end with `end`."""
        if start or not end:
            return _beginning_with(start, self._forward)
        return sorted(name[::-1] for name in _beginning_with(end[::-1], self._backward))


def _beginning_with(start: str, names: list[str]) -> list[str]:
    return names[bisect_left(names, start) : bisect_left(names, start + _LAST)]


class ImagePattern:
    """A pattern, read once, and then filled in for each row of the table.

    ``*`` and ``?`` do not match ``/``; next to a value that ends (or begins) with a digit they
    do not match a further digit, so that ``S1`` does not take the images of ``S10``.

    Examples
    --------
    >>> pattern = ImagePattern("{id}*.png")
    >>> names = NameIndex(["S1.png", "S10.png", "S1_b.png"])
    >>> pattern.matches({"id": "S1"}, names)
    ['S1.png', 'S1_b.png']
    """

    def __init__(self, pattern: str) -> None:
        self._parts = _parse(pattern)

    @property
    def columns(self) -> list[str]:
        """The names in braces."""
        return [part.text for part in self._parts if part.kind == "column"]

    def matches(self, values: Mapping[str, str], names: NameIndex) -> list[str]:
        """Return the names that match when each placeholder has the value of its column."""
        texts = [values[p.text] if p.kind == "column" else p.text for p in self._parts]
        wild = [i for i, part in enumerate(self._parts) if part.kind == "wildcard"]
        if not wild:
            name = "".join(texts)
            return [found for found in names.candidates(name, "") if found == name]
        start, end = "".join(texts[: wild[0]]), "".join(texts[wild[-1] + 1 :])
        candidates = names.candidates(start, end)
        # the part before the first wildcard is compared as text, so that one and the same
        # expression serves all rows of the usual pattern
        rest = _compiled("".join(self._expression(i, texts) for i in range(wild[0], len(texts))))
        return [
            name
            for name in candidates
            if name.startswith(start) and rest.fullmatch(name, len(start))
        ]

    def _expression(self, i: int, texts: list[str]) -> str:
        part = self._parts[i]
        if part.kind != "wildcard":
            return re.escape(texts[i])
        if part.text not in _WILDCARDS:
            return _one_of(part.text)
        expression = _WILDCARDS[part.text]
        before = texts[i - 1] if i and self._parts[i - 1].kind == "column" else ""
        after = self._parts[i + 1 : i + 2]
        follows = texts[i + 1] if after and after[0].kind == "column" else ""
        if before[-1:].isdigit():
            expression = "(?![0-9])" + expression
        if follows[:1].isdigit():
            expression += "(?<![0-9])"
        return expression


_WILDCARDS: Mapping[str, str] = {"*": "[^/]*", "?": "[^/]"}


def _one_of(characters: str) -> str:
    """Return the expression of a list such as ``[a-z_]``, in which no sign but ``-`` is special."""
    signs = characters[1:-1]
    negated = signs.startswith("!") and len(signs) > 1
    signs = signs[1:] if negated else signs
    # each sign is escaped, since re warns of signs that may become special one day
    inside = "".join(
        re.escape(low) + (f"-{re.escape(high)}" if high else "") for low, high in _ranges(signs)
    )
    return f"(?!/)[{'^' if negated else ''}{inside}]"


def _ranges(signs: str) -> Iterator[tuple[str, str]]:
    """Return the ends of each range; a single sign has an empty second end."""
    for match in re.finditer("(.)-(.)|(.)", signs, re.DOTALL):
        low, high, single = match.groups(default="")
        if low > high:
            raise RefusedError(
                f"{printable(low)}-{printable(high)} in image runs backwards",
                f"write {printable(high)}-{printable(low)} in {FILE_NAME}",
            )
        yield single or low, high


@lru_cache(maxsize=256)
def _compiled(expression: str) -> re.Pattern[str]:
    return re.compile(expression, re.DOTALL)


def _parse(pattern: str) -> list[_Part]:
    parts = []
    for match in _PART.finditer(pattern):
        column, wildcard, characters, text, stray = match.groups()
        if stray is not None:
            raise RefusedError(
                f"image = {printable(pattern)!r} has a brace without its partner",
                f"write each column of the table as {{Column}} in {FILE_NAME}",
            )
        if column is not None:
            parts.append(_Part("column", column.strip()))
        elif text is not None:
            parts.append(_Part("text", text))
        elif wildcard is not None:
            # ** means no more than *, and costs much more to compare
            parts.append(_Part("wildcard", wildcard[0]))
        else:
            # what cannot be compared is refused once, and not for each specimen
            _one_of(characters)
            parts.append(_Part("wildcard", characters))
    return parts
