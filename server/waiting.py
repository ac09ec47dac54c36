"""Waiting for labs before a run begins or goes on; every wait has an end."""

from __future__ import annotations

import logging
import shlex
import time

from common.errors import QuorumError
from server.roster import quorum_of
from server.state import Progress
from server.status import Status

log = logging.getLogger(__name__)


def wait_for_all(status: Status, wait: float) -> set[str]:
    """Wait until every lab that is invited or enrolled is connected, or the time is over.

    Returns
    -------
    set of str
        Labs that were invited and have not joined; the run begins without them.

    Raises
    ------
    QuorumError
        If fewer labs than a quorum have come by then; names those that are missing.
    """
    until = time.monotonic() + wait
    is_said = False
    while True:
        labs = {lab.name for lab in status.register.labs() if lab.revoked is None}
        invited = {invite.name for invite in status.register.open_invites()} - labs
        away = sorted(labs - status.exchange.connected())
        names = [*away, *(f"{name} (invited, has not joined)" for name in sorted(invited))]
        status.waits_for = ", ".join(names)
        if labs and not names:
            return set()
        if not names:
            status.waits_for = "a first lab: nobody is invited yet"
        if not names and not is_said:
            where = shlex.quote(str(status.state.folder))
            log.warning(
                "nobody is invited yet: crossply server invite LAB-NAME --state %s, for each lab; "
                "the run begins when all of them are here",
                where,
            )
            is_said = True
        if time.monotonic() >= until:
            break
        time.sleep(0.1)
    num_labs, num_here = len(labs | invited), len(labs) - len(away)
    needed = quorum_of(num_labs, status.federation.training.quorum)
    if num_here < needed:
        raise QuorumError(
            f"{num_here} of {num_labs} labs came within {wait:.0f} s and the quorum is {needed}; "
            f"missing: {'; '.join(names) or 'all: invite labs first'}"
        )
    log.warning("the run begins without %s", ", ".join(names))
    return invited


def wait_for_those_of(progress: Progress, status: Status, seconds: float) -> None:
    """Wait for the labs of a run that goes on, as a round waits for those whose connection broke.

    What is under way is then computed with the labs that it would have had; those that stay away
    are missed like any others.
    """
    if progress.phase == "finished":
        log.info("the model waits for %s", ", ".join(progress.unreleased))
        labs = set(progress.unreleased)
    else:
        log.info("the run goes on after round %d", progress.state.server_round)
        away = set(progress.state.history[-1].failed) if progress.state.history else set()
        labs = set(progress.roster.names.values()) - away
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        out = {lab.name for lab in status.register.labs() if lab.revoked is not None}
        missing = labs - out - status.exchange.connected()
        status.waits_for = ", ".join(sorted(missing))
        if not missing:
            break
        time.sleep(0.1)
    status.waits_for = ""
