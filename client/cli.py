"""The command ``crossply lab``: what a lab does on its own machine."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from client.findings import Finding, Findings

app = typer.Typer(name="lab", help="What a lab does on its own machine.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `check` a subcommand, also while it is the only one."""


@app.command()
def check(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The lab's folder, which holds lab.toml.")
    ],
    federation: Annotated[
        Path | None,
        typer.Option(help="federation.toml; looked for in DIR and its parent if not given."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Check a lab's folder: pass, fix or stop for each thing found. Nothing is sent."""
    from client.dataset import check_folder
    from common.federation import load_federation

    agreement = load_federation(federation or find_federation(folder))
    _, findings = check_folder(folder, agreement, decode=True)
    if as_json:
        typer.echo(_as_json(findings))
    else:
        _print(findings.items, folder, agreement.name)
    if findings.stops:
        raise typer.Exit(1)


def find_federation(folder: Path) -> Path:
    """Return the federation file in a lab's folder, or the one beside the folder.

    Raises
    ------
    ConfigurationError
        If there is none.
    """
    from common.errors import ConfigurationError
    from common.federation import FILE_NAME

    for path in (folder / FILE_NAME, folder.absolute().parent / FILE_NAME):
        # whatever has the name is meant; what is no regular file is refused when it is read
        if os.path.lexists(path):
            return path
    raise ConfigurationError(
        f"{folder} holds no {FILE_NAME}, nor does its parent; name it with --federation FILE"
    )


def _as_json(findings: Findings) -> str:
    items = [asdict(finding) for finding in findings.items]
    return json.dumps({"ok": not findings.stops, "findings": items}, indent=2)


def _print(findings: Sequence[Finding], folder: Path, federation: str) -> None:
    from rich.console import Console
    from rich.markup import escape

    from client.findings import Level, shortened

    console = Console(highlight=False)
    # what matters most comes last, next to the prompt
    console.print(_as_table(sorted(shortened(findings), key=lambda f: list(Level).index(f.level))))
    console.print()
    console.print(escape(_closing(findings, folder, federation)), soft_wrap=True)


def _as_table(findings: Sequence[Finding]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from client.findings import Level

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


def _closing(findings: Sequence[Finding], folder: Path, federation: str) -> str:
    from client.findings import Level, printable

    name = printable(folder.absolute().name)
    num_stops = sum(finding.level is Level.STOP for finding in findings)
    num_fixes = sum(finding.level is Level.FIX for finding in findings)
    if num_stops:
        return f"{name} cannot join {federation} yet: {_plural(num_stops, 'reason')} to stop."
    if num_fixes:
        return f"{name} can join {federation}; {_plural(num_fixes, 'finding')} to look at."
    return f"{name} can join {federation}."


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
