"""The command ``crossply``: what it offers, and how errors are told."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version

import typer

import client.cli
import server.cli
import simulation.cli
import simulation.cli_sweep
from common.errors import CrossplyError
from common.garbage import search_less

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Many labs, one property predictor, and nothing private leaves a lab.",
)
app.add_typer(client.cli.app, name="lab", help="At a lab: check its data, join, take part.")
app.add_typer(server.cli.app, name="server", help="At the coordinator: invite labs, run them.")
app.command(name="simulate")(simulation.cli.simulate)
app.command(name="sweep")(simulation.cli_sweep.sweep)
app.command(name="demo")(simulation.cli.demo)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"crossply {version('crossply')}")
        raise typer.Exit


@app.callback()
def options(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(
        False, "--version", is_eager=True, callback=_show_version, help="Show the version."
    ),
) -> None:
    """Take the options that come before the name of a command."""


def main() -> None:
    """Run the command; an error is one sentence on standard error and exit status 1."""
    # Flower reports its use and asks for updates unless told not to
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    search_less()
    try:
        app()
    except CrossplyError as error:
        if "--debug" in sys.argv:
            raise
        print(f"crossply: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if "--debug" in sys.argv:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"crossply: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
