"""A line for each lab in ``crossply server status``, also where no coordinator runs to say more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.register import Register

ONLINE, AWAY, INVITED, REVOKED = "online", "away", "invited", "revoked"
HAS_THE_MODEL = "has the model"

NOT_YET = "has not got the model yet: start the coordinator again when the lab is there"

MODEL_PHASES = ("release", "finished")
"""In which there is a model that a lab may be without."""


def line_of(
    lab: str,
    standing: str,
    why: str = "",
    *,
    last_round: int | None = None,
    last_seen: str | None = None,
) -> dict[str, Any]:
    """Return one lab's line."""
    return {
        "lab": lab,
        "standing": standing,
        "round": last_round,
        "last_seen": last_seen,
        "why": why,
    }


def invited_lines(register: Register) -> list[dict[str, Any]]:
    """Return the lines of those that have been invited and have not joined."""
    enrolled = {lab.name for lab in register.labs() if lab.revoked is None}
    return [
        line_of(
            invite.name,
            INVITED,
            f"has not joined; the invite ends {invite.expires:%Y-%m-%d %H:%M} UTC",
        )
        for invite in register.open_invites()
        if invite.name not in enrolled
    ]


def lines_without_coordinator(found: Mapping[str, Any], register: Register) -> list[dict[str, Any]]:
    """Return the lines of a status that a coordinator left, with what has changed since.

    Parameters
    ----------
    found : mapping
        The last status that was written.
    register : Register
        Labs are invited and revoked also where no coordinator runs.
    """
    before = {line["lab"]: line for line in found["labs"] if line["standing"] != INVITED}
    without = set(found.get("without_model", ())) if found["phase"] in MODEL_PHASES else set()
    lines = []
    for lab in register.labs():
        line = before.get(lab.name) or line_of(lab.name, AWAY)
        standing, why = line["standing"], line["why"]
        if lab.revoked is not None:
            why = why or (HAS_THE_MODEL if standing == HAS_THE_MODEL else "")
            standing = REVOKED
        else:
            standing = AWAY if standing in (ONLINE, REVOKED) else standing
            why = NOT_YET if lab.name in without else why
        lines.append({**line, "standing": standing, "why": why})
    return [*lines, *invited_lines(register)]
