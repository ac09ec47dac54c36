"""What was found in a lab's folder: passes, things to fix, and reasons to stop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from common.errors import CrossplyError, LabDataError


class RefusedError(LabDataError):
    """One thing that cannot be used, before it is known which file and row it belongs to.

    Attributes
    ----------
    found : str
    action : str
        What to do about it.
    """

    def __init__(self, found: str, action: str) -> None:
        super().__init__(f"{found}; {action}" if action else found)
        self.found = found
        self.action = action

    def __reduce__(self) -> tuple[type[RefusedError], tuple[str, str]]:
        # it travels from worker processes to the lab's own
        return type(self), (self.found, self.action)


class Level(StrEnum):
    """How much a finding matters: fine, worth a look, or a refusal."""

    PASS = "pass"
    FIX = "fix"
    STOP = "stop"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of ``crossply lab check``.

    Attributes
    ----------
    level : Level
    file : str
        Relative to the lab's folder, control characters escaped.
    row : int or None
        Line of the table as an editor counts it: the header is line 1.
    column : str or None
    found : str
    action : str
        What to do about it.
    """

    level: Level
    file: str
    found: str
    action: str = ""
    row: int | None = None
    column: str | None = None

    def sentence(self) -> str:
        """Return the finding as one sentence."""
        place = [self.file]
        if self.row is not None:
            place.append(f"row {self.row}")
        if self.column is not None:
            place.append(f"column {self.column!r}")
        text = f"{', '.join(place)}: {self.found}"
        return f"{text}; {self.action}" if self.action else text


@dataclass
class Findings:
    """The findings of one folder, in the order in which they were made."""

    items: list[Finding] = field(default_factory=list)

    def stop(
        self, file: str, found: str, action: str, row: int | None = None, column: str | None = None
    ) -> None:
        """Note a reason to refuse the folder."""
        self.items.append(
            Finding(level=Level.STOP, file=file, found=found, action=action, row=row, column=column)
        )

    def fix(
        self, file: str, found: str, action: str, row: int | None = None, column: str | None = None
    ) -> None:
        """Note something that a person should look at."""
        self.items.append(
            Finding(level=Level.FIX, file=file, found=found, action=action, row=row, column=column)
        )

    def passed(self, file: str, found: str) -> None:
        """Note that something was looked at and is fine."""
        self.items.append(Finding(level=Level.PASS, file=file, found=found))

    def refuse(
        self, file: str, why: CrossplyError, row: int | None = None, column: str | None = None
    ) -> None:
        """Note an error of one file or cell as a reason to refuse the folder."""
        if isinstance(why, RefusedError):
            self.stop(file, why.found, why.action, row, column)
        else:
            found, _, action = str(why).partition("; ")
            self.stop(file, found, action, row, column)

    @property
    def stops(self) -> Sequence[Finding]:
        """The findings that refuse the folder."""
        return [item for item in self.items if item.level is Level.STOP]

    def raise_if_stopped(self, folder: str) -> None:
        """Raise if anything refuses the folder.

        Raises
        ------
        LabDataError
            Lists the first reasons, one a line.
        """
        if self.stops:
            raise LabDataError(refusal(folder, self.stops))


def shortened(findings: Iterable[Finding], at_most: int = 10) -> list[Finding]:
    """Return the findings with only the first few of each kind, and how many more there are.

    Of one kind are findings with the same level, column and action; those of a kind stand
    together. Of what only needs a look, half as many are shown as of reasons to stop.

    Examples
    --------
    >>> many = [Finding(level=Level.STOP, file="a.csv", found="zero", row=row) for row in range(9)]
    >>> [finding.found for finding in shortened(many, at_most=2)]
    ['zero', 'zero', 'and 7 more like this']
    """
    kinds: dict[tuple[Level, str | None, str], list[Finding]] = {}
    result: list[Finding] = []
    for item in findings:
        if item.level is Level.PASS:
            result.append(item)
        else:
            kinds.setdefault((item.level, item.column, item.action), []).append(item)
    for (level, column, _), items in kinds.items():
        shown = at_most if level is Level.STOP else max(1, at_most // 2)
        result += items[:shown]
        if len(items) > shown:
            more = f"and {len(items) - shown} more like this"
            result.append(Finding(level=level, file="", column=column, found=more))
    return result


def refusal(folder: str, stops: Iterable[Finding], at_most: int = 5) -> str:
    """Return the reasons to refuse a folder as text, the first few in full."""
    reasons = [finding.sentence() for finding in stops]
    lines = [f"{folder} cannot be used as it is:", *(f"  {reason}" for reason in reasons[:at_most])]
    if len(reasons) > at_most:
        lines.append(f"  and {len(reasons) - at_most} more; see all with: crossply lab check")
    return "\n".join(lines)


def first_few(names: Sequence[str], at_most: int = 5) -> str:
    """Return the first of some names, and how many more there are.

    Examples
    --------
    >>> first_few(["a", "b", "c"], at_most=2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more


def printable(text: str) -> str:
    r"""Return `text` with control characters and undecodable bytes escaped.

    Examples
    --------
    >>> printable("a\x07b\udcff")
    'a\\x07b\\udcff'
    """
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )
