"""The command ``crossply lab``: what a lab does on its own machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client import (
    cli_doctor,
    cli_explain,
    cli_export,
    cli_features,
    cli_join,
    cli_log,
    cli_predict,
    cli_start,
)
from client.cli_options import Agreement, Folder

if TYPE_CHECKING:
    from client.findings import Finding

app = typer.Typer(name="lab", help="What a lab does on its own machine.", no_args_is_help=True)


@app.command()
def check(
    folder: Folder,
    federation: Agreement = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Check a lab's folder: pass, fix or stop for each thing found. Nothing is sent."""
    from client.dataset import check_folder
    from client.findings_table import as_json as findings_as_json
    from client.findings_table import print_findings
    from client.folders import find_federation
    from client.held_out import check_held_out
    from client.reference import check_reference
    from common.federation import load_federation

    agreement = load_federation(federation or find_federation(folder))
    dataset, findings = check_folder(folder, agreement, decode=True)
    if dataset is not None and dataset.partition is None:
        check_held_out(dataset, agreement, findings)
    check_reference(agreement, findings)
    if as_json:
        typer.echo(findings_as_json(findings))
    else:
        print_findings(findings.items, _closing(findings.items, folder, agreement.name))
    if findings.stops:
        raise typer.Exit(1)


app.command(name="features")(cli_features.features)
app.command(name="cache")(cli_features.cache)
app.command(name="join")(cli_join.join)
app.command(name="doctor")(cli_doctor.doctor)
app.command(name="start")(cli_start.start)
app.command(name="log")(cli_log.log)
app.command(name="predict")(cli_predict.predict)
app.command(name="export")(cli_export.export)
app.command(name="explain")(cli_explain.explain)


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
