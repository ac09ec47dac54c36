"""Findings as a table, for `crossply lab check` and `crossply lab doctor`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import compress
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from client.findings import Finding, Findings, Level, shortened


def as_json(findings: Findings) -> str:
    """Return findings for programs."""
    items = [asdict(finding) for finding in findings.items]
    return json.dumps({"ok": not findings.stops, "findings": items}, indent=2)


def print_findings(findings: Sequence[Finding], closing: str) -> None:
    """Print findings as a table, what matters most last, and a closing sentence."""
    console = Console(highlight=False)
    # what matters most comes last, next to the prompt
    console.print(_as_table(sorted(shortened(findings), key=lambda f: list(Level).index(f.level))))
    console.print()
    console.print(escape(closing), soft_wrap=True)


COLUMNS: dict[str, dict[str, Any]] = {
    "level": {"no_wrap": True},
    "file": {"overflow": "fold", "max_width": 24},
    "row": {"justify": "right", "no_wrap": True},
    "column": {"overflow": "fold", "max_width": 20},
    # a key to be edited is cut nowhere
    "found": {"ratio": 3, "overflow": "fold"},
    "what to do": {"ratio": 2, "overflow": "fold"},
}


def _as_table(findings: Sequence[Finding]) -> Table:
    rows = [_cells(*pair) for pair in zip(findings, [None, *findings], strict=False)]
    filled = [any(cells) for cells in zip(*rows, strict=True)]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for (name, looks), keep in zip(COLUMNS.items(), filled, strict=False):
        if keep:
            table.add_column(name, **looks)
    for cells in rows:
        table.add_row(*compress(cells, filled))
    return table


def _cells(finding: Finding, above: Finding | None) -> tuple[str, ...]:
    style = {Level.PASS: "green", Level.FIX: "yellow", Level.STOP: "bold red"}[finding.level]
    # what to do is said once for several findings of one kind
    again = above is not None and finding.action and finding.action == above.action
    row = "" if finding.row is None else str(finding.row)
    action = '"' if again else finding.action
    texts = (finding.file, row, finding.column or "", finding.found, action)
    return (f"[{style}]{finding.level}[/]", *(escape(text) for text in texts))
