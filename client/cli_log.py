"""``crossply lab log``: what has left this lab."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from client.cli_join import DEFAULT_STATE, State

if TYPE_CHECKING:
    from pathlib import Path


SHOWN = 20


def log(
    state: State = DEFAULT_STATE,
    verify: Annotated[
        bool, typer.Option("--verify", help="Only say whether the log is unbroken.")
    ] = False,
    expect: Annotated[
        str | None,
        typer.Option(metavar="HASH", help="A hash noted earlier that must stand in the log."),
    ] = None,
    last: Annotated[
        int | None,
        typer.Option(min=1, help="How many messages to show; 20 in a table, all as JSON."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Show what has left this lab, and whether the log of it was touched."""
    import json

    from client.membership import open_membership
    from client.sent_log import BEGINNING, verified

    path = open_membership(state).log_path
    entries = verified(path)
    if expect is not None:
        _check_expected(expect, entries, path)
    if verify or expect is not None:
        newest = entries[-1]["hash"] if entries else BEGINNING
        typer.echo(f"{path}: {len(entries)} messages, unbroken; last hash {newest}")
    elif as_json:
        typer.echo(json.dumps(entries[-last:] if last else entries, indent=2))
    else:
        _print(entries[-(last or SHOWN) :], len(entries))


def _check_expected(expect: str, entries: list[dict[str, Any]], path: Path) -> None:
    from common.errors import ConfigurationError, StateError

    if len(expect) != 64:
        raise ConfigurationError(f"--expect needs the whole hash, 64 digits, not {len(expect)}")
    if not any(entry["hash"] == expect for entry in entries):
        raise StateError(
            f"{path} does not hold the hash {expect[:12]}: messages are missing at its end, or "
            "this is another lab's log"
        )


def _print(entries: list[dict[str, Any]], num_all: int) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from client.findings import printable

    console = Console(highlight=False)
    if not entries:
        console.print("Nothing has left this lab.")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column, justify in (("no.", "right"), ("time", "left"), ("message", "left")):
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("what")
    for entry in entries:
        what = "; ".join(entry["summary"])
        answer = entry["answer"]
        table.add_row(
            str(entry["seq"]),
            entry["time"].replace("T", " ").replace("+00:00", ""),
            escape(printable(entry["type"])),
            f"{entry['bytes']}",
            escape(printable(what if answer == "content" else f"a code: {answer}")),
        )
    console.print(table)
    if len(entries) < num_all:
        console.print(f"\nThe last {len(entries)} of {num_all}; --last N shows more.")
