"""``crossply lab doctor``: whether all is ready for taking part."""

from __future__ import annotations

from typing import Annotated

import typer

from client.cli_join import DEFAULT_STATE, State


def doctor(
    state: State = DEFAULT_STATE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Check address, TLS, clock, disk, GPU, data and features: pass, fix or stop for each."""
    from common.tls13 import require_tls13

    require_tls13()
    from client.doctor import examine
    from client.findings_table import as_json as findings_as_json
    from client.findings_table import print_findings
    from client.membership import open_membership

    membership = open_membership(state)
    findings = examine(membership)
    stops = len(findings.stops)
    if as_json:
        typer.echo(findings_as_json(findings))
    else:
        where = "" if state == DEFAULT_STATE else f" --state {state}"
        ready = f"{membership.lab} is ready: crossply lab start{where}"
        print_findings(findings.items, f"{stops} to mend first." if stops else ready)
    if stops:
        raise typer.Exit(1)
