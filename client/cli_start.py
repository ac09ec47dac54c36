"""``crossply lab start``: take part in the run, to its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.cli_join import DEFAULT_STATE, State

if TYPE_CHECKING:
    from common.stopping import StopSignals


def start(
    state: State = DEFAULT_STATE,
    patience: Annotated[
        str, typer.Option(help="How long to try while the coordinator cannot be reached.")
    ] = "15 min",
    forever: Annotated[
        bool, typer.Option("--forever", help="Try for ever, as a service does.")
    ] = False,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log lines as JSON.")] = False,
) -> None:
    """Take part: read the data, connect, answer what the policy allows, until the run is over."""
    from common.tls13 import require_tls13

    require_tls13()
    from common.stopping import Stopped, StopSignals

    try:
        with StopSignals() as signals:
            model = _take_part(state, patience, forever, log_json, signals)
    except Stopped:
        typer.echo("Stopped; the same command takes part again.")
        return
    typer.echo(f"The run is finished; the shared model is {model}.")
    from client.own_report import report_path

    if (report := report_path(model)).exists():
        typer.echo(f"What it is worth to this lab stands in {report}.")


def _take_part(
    state: Path, patience: str, forever: bool, log_json: bool, signals: StopSignals
) -> Path:
    from client.membership import open_membership
    from client.service import take_part
    from common.garbage import unsearched
    from common.logs import configure_logs
    from common.units import seconds

    configure_logs(as_json=log_json)
    limit = float("inf") if forever else seconds(patience)
    membership = open_membership(state)
    with membership.locked(), unsearched():
        return take_part(membership, limit, signals)
