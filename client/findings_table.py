"""Findings as a table, for `crossply lab check` and `crossply lab doctor`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

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


def _as_table(findings: Sequence[Finding]) -> Table:
    styles = {Level.PASS: "green", Level.FIX: "yellow", Level.STOP: "bold red"}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("level", no_wrap=True)
    table.add_column("file", overflow="fold", max_width=24)
    table.add_column("row", justify="right", no_wrap=True)
    table.add_column("column", overflow="fold", max_width=20)
    table.add_column("found", ratio=3)
    table.add_column("what to do", ratio=2)
    above = None
    for finding in findings:
        # what to do is said once for several findings of one kind
        action = '"' if finding.action and finding.action == above else finding.action
        above = finding.action
        style = styles[finding.level]
        row = "" if finding.row is None else str(finding.row)
        cells = (finding.file, row, finding.column or "", finding.found, action)
        table.add_row(f"[{style}]{finding.level}[/]", *(escape(cell) for cell in cells))
    return table
