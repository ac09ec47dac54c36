"""Asking the labs on a grid, with a deadline, and requiring that enough of them answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TypeAlias

from flwr.app import Message
from flwr.serverapp import Grid

from common.counts import HELD_OUT_ONE_IN
from common.errors import NO_REPLY, NOT_CONNECTED, QuorumError
from common.federation import Federation
from common.messages import Terms
from common.units import seconds
from server.roster import Roster
from server.strategy import Screened, check_replies

Check: TypeAlias = Callable[[int, Message], None]
"""Given a node and its reply, raises ReplyError if the reply breaks the schema."""


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Asks labs, screens what they say, and keeps their roster.

    Attributes
    ----------
    grid : Grid
    federation : Federation
    roster : Roster
    revoked : callable
        Returns the nodes of the labs that have been put out.
    held_out_one_in : int
        A lab holds out one specimen in so many at most.
    """

    grid: Grid
    federation: Federation
    roster: Roster = field(default_factory=Roster)
    revoked: Callable[[], Collection[int]] = tuple
    held_out_one_in: int = HELD_OUT_ONE_IN

    @property
    def _terms(self) -> Terms:
        return Terms.of(self.federation)

    def _ask(self, requests: list[Message], check: Check, at_once: int | None = None) -> Screened:
        """Ask labs, all of them or so many at once, and screen what they say."""
        deadline = seconds(self.federation.training.round_deadline)
        screened = Screened(accepted={}, broken={}, failed={})
        size = at_once or max(1, len(requests))
        for start in range(0, len(requests), size):
            group = requests[start : start + size]
            replies = self.grid.send_and_receive(group, timeout=deadline)
            asked = {m.metadata.message_id: m.metadata.dst_node_id for m in group}
            screened.add(check_replies(replies, check, asked))
        self.roster.forget(self.revoked())
        return screened

    def _wait_for_nodes(self) -> list[int]:
        """Wait for the first lab, up to the deadline of a round."""
        until = time.monotonic() + seconds(self.federation.training.round_deadline)
        while not (nodes := sorted(self.grid.get_node_ids())):
            if time.monotonic() > until:
                raise QuorumError("handshake: no lab has come before the deadline of a round")
            time.sleep(0.1)
        return nodes

    def _require_quorum(self, present: int, phase: str, screened: Screened | None = None) -> None:
        missing = dict(self.roster.excluded)
        if screened is not None:
            missing |= self.roster.named(screened.failed | screened.broken)
        self.roster.require_quorum(present, self.federation.training.quorum, phase, missing)

    def _require_answers(self, num_asked: int, phase: str, screened: Screened) -> None:
        """Require that a quorum answers, if only to say that a policy keeps something back."""
        silent = [why for why in screened.failed.values() if why in (NO_REPLY, NOT_CONNECTED)]
        self._require_quorum(num_asked - len(silent), phase, screened)
