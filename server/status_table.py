"""``crossply server status``, for people."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.errors import StateError
from server.register import Register
from server.state_folder import Coordination
from server.status_lines import AWAY, HAS_THE_MODEL, ONLINE, REVOKED, lines_without_coordinator

STYLES = {
    ONLINE: "green",
    HAS_THE_MODEL: "green",
    AWAY: "yellow",
    "out": "bold red",
    REVOKED: "bold red",
}


def read_status(state: Coordination) -> dict[str, Any]:
    """Return the last status that a coordinator wrote, and whether one runs now.

    Where none runs, labs stand as the register has them, which changes without a coordinator.

    Raises
    ------
    StateError
        If none has been started yet, or the file cannot be read.
    """
    try:
        found: dict[str, Any] = json.loads(state.status_path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StateError(
            f"no coordinator has been started on {state.folder}; run `crossply server start`"
        ) from error
    except (OSError, ValueError) as error:
        raise StateError(f"{state.status_path} cannot be read; start the coordinator") from error
    if state.is_locked():
        return {"running": True, **found}
    labs = lines_without_coordinator(found, Register(state.folder))
    return {"running": False, **found, "labs": labs, "waits_for": ""}


def print_status(found: dict[str, Any]) -> None:
    """Print a status as a table of labs and a line about the run."""
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("lab", "standing", "round", "last seen", "why"):
        table.add_column(column, justify="right" if column == "round" else "left")
    for lab in found["labs"]:
        standing = lab["standing"]
        style = STYLES.get(standing, "dim")
        seen = (lab["last_seen"] or "never").replace("T", " ").replace("+00:00", " UTC")
        last = "" if lab["round"] is None else str(lab["round"])
        shown = (escape(lab["lab"]), f"[{style}]{standing}[/]", last, seen, escape(lab["why"]))
        table.add_row(*shown)
    console.print(table)
    console.print()
    console.print(escape(_sentence(found)), soft_wrap=True)
    if found["waits_for"]:
        console.print(escape(f"It waits for {found['waits_for']}"), soft_wrap=True)


def _sentence(found: dict[str, Any]) -> str:
    where = f"{found['federation']} at {found['address']}"
    if found["phase"] == "finished":
        return f"{where}: finished after {found['rounds']} rounds."
    if not found["running"]:
        return (
            f"{where}: not running; stopped in phase {found['phase']}, round {found['round']} of "
            f"{found['rounds']}. `crossply server start` goes on from there."
        )
    left = found["seconds_left"]
    eta = "" if left is None else f", about {timedelta(seconds=round(left))} left"
    return f"{where}: {found['phase']}, round {found['round']} of {found['rounds']}{eta}."
