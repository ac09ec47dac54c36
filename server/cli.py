"""The command ``crossply server``: what the coordinator does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

app = typer.Typer(name="server", help="What the coordinator does.", no_args_is_help=True)

State: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--state",
        envvar="CROSSPLY_SERVER_STATE",
        help="The coordinator's state folder: keys, the register, the run.",
    ),
]

DEFAULT_STATE = Path("crossply-server")

LONGEST_INVITE_S = 365 * 24 * 3600.0


@app.command()
def init(
    federation: Annotated[Path, typer.Argument(metavar="FILE", help="federation.toml.")],
    address: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="How labs reach this coordinator.")
    ],
    state: State = DEFAULT_STATE,
) -> None:
    """Make the coordinator's state folder: its certificates and the agreement."""
    from server.state_folder import create_coordination

    made = create_coordination(federation, address, state)
    typer.echo(f"{state} is ready for {made.federation().name} at {made.address}.")
    typer.echo(f"Fingerprint of the agreement: {made.fingerprint}")
    where = "" if state == DEFAULT_STATE else f" --state {state}"
    typer.echo(
        f"Next: crossply server invite LAB-NAME{where}, for each lab; then crossply server "
        f"start{where}"
    )


@app.command()
def invite(
    name: Annotated[str, typer.Argument(metavar="LAB", help="The lab's name, as iws-dresden.")],
    valid: Annotated[str, typer.Option(help="How long the invite may be used.")] = "7 days",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write it; LAB.invite if not given."),
    ] = None,
    state: State = DEFAULT_STATE,
) -> None:
    """Write an invite: one file to send to one lab, good once."""
    from datetime import timedelta

    from common.errors import ConfigurationError
    from common.units import seconds
    from server.enrolment import write_invite
    from server.state_folder import open_coordination

    coordination = open_coordination(state)
    length = seconds(valid)
    if not 0 < length <= LONGEST_INVITE_S:
        raise ConfigurationError(f"--valid must be more than nothing and at most a year: {valid!r}")
    path = out or Path(f"{name}.invite")
    if path.exists():
        raise ConfigurationError(f"{path} exists already; remove it, or name another with --out")
    made = write_invite(coordination, name, timedelta(seconds=length), path)
    typer.echo(f"{path} is good once, until {made.expires:%Y-%m-%d %H:%M} UTC.")
    typer.echo(
        "Send it so that nobody else gets it, and tell the lab the fingerprint by another way: "
        f"{made.fingerprint[:12]}"
    )
    typer.echo(f"At the lab: crossply lab join {path.name} --data THE-LABS-FOLDER")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="LAB", help="The lab's name.")],
    state: State = DEFAULT_STATE,
) -> None:
    """Put a lab out, or take back its invite; a running coordinator heeds it within seconds."""
    from server.register import Register
    from server.state_folder import open_coordination

    what = Register(open_coordination(state).folder).revoke(name)
    typer.echo(f"{name}: its {'invite' if what == 'invite' else 'certificate'} is revoked.")


@app.command()
def start(
    state: State = DEFAULT_STATE,
    wait: Annotated[
        str, typer.Option(help="How long to wait for labs that have not come, or are gone.")
    ] = "1 h",
    grace: Annotated[
        str, typer.Option(help="How long a round waits for a lab whose connection broke.")
    ] = "30 s",
    bind: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where to listen, if not everywhere.")
    ] = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log lines as JSON.")] = False,
) -> None:
    """Wait for the labs and run the federation; a run that was stopped goes on where it was."""
    from common.stopping import Stopped, StopSignals
    from common.tls13 import require_tls13

    require_tls13()
    from common.garbage import unsearched
    from common.logs import configure_logs
    from common.units import seconds
    from server.results import REPORT_NAME, RESULT_NAME
    from server.service import ServeOptions, serve
    from server.state_folder import open_coordination

    configure_logs(as_json=log_json)
    options = ServeOptions(wait=seconds(wait), grace=seconds(grace), bind=bind)
    try:
        with StopSignals(), unsearched():
            folder = serve(open_coordination(state), options)
    except Stopped:
        typer.echo("Stopped; the same command goes on where the run was.")
        return
    typer.echo(f"The run is finished; its model, {RESULT_NAME} and {REPORT_NAME} are in {folder}.")


@app.command()
def report(
    state: State = DEFAULT_STATE,
    contributions: Annotated[
        bool,
        typer.Option("--contributions", help="Say what each lab contributes: once labs agree."),
    ] = False,
) -> None:
    """Write the report of a finished run again: all labs, and nothing of a single specimen."""
    from common.errors import StateError
    from server.checkpoint import Checkpoints
    from server.results import write_page
    from server.state_folder import open_coordination

    coordination = open_coordination(state)
    progress = Checkpoints(coordination.run_folder, coordination.fingerprint).load()
    if progress is None or progress.phase != "finished":
        raise StateError(f"the run in {state} has not finished; see: crossply server status")
    path = write_page(
        coordination.run_folder, coordination.federation(), progress.result(), judged=contributions
    )
    typer.echo(f"Written to {path}.")


@app.command()
def status(
    state: State = DEFAULT_STATE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Say which labs are there, which round it is, and whom the run waits for."""
    import json

    from server.state_folder import open_coordination
    from server.status_table import print_status, read_status

    coordination = open_coordination(state)
    found = read_status(coordination)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_status(found)
