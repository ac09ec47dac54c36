"""How a run stands: written by the coordinator, read by ``crossply server status``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from common import errors
from common.federation import Federation
from common.files import write_atomically
from common.link_pb2 import LookReply
from server.exchange import Exchange
from server.register import EnrolledLab, Register
from server.roster import Roster
from server.rounds import Watcher
from server.state import Progress, RoundRecord
from server.state_folder import Coordination
from server.status_lines import (
    AWAY,
    HAS_THE_MODEL,
    NOT_YET,
    ONLINE,
    REVOKED,
    invited_lines,
    line_of,
)


@dataclass(kw_only=True)
class Status:
    """What a running coordinator knows, and tells in ``status.json``."""

    state: Coordination
    federation: Federation
    exchange: Exchange
    register: Register
    clock: Callable[[], float] = time.monotonic
    phase: str = "waiting for labs"
    server_round: int = 0
    waits_for: str = ""
    roster: Roster = field(default_factory=Roster)
    missing: dict[str, str] = field(default_factory=dict)
    without_model: tuple[str, ...] = ()
    last_rounds: dict[str, int] = field(default_factory=dict)
    _times: list[float] = field(default_factory=list)

    def watcher(self) -> Watcher:
        """Return what keeps this status up to date during a run."""
        return Watcher(entered=self._entered, counted=self._counted, paused=self._paused)

    def resume(self, progress: Progress) -> None:
        """Take over what a run had come to before this process."""
        self.roster, self.server_round = progress.roster, progress.state.server_round
        self.without_model = progress.unreleased
        for record in progress.state.history:
            self._note_rounds(record)

    def look(self, version: str) -> LookReply:
        """Return what a lab's doctor is told."""
        return LookReply(
            time=time.time(),
            version=version,
            fingerprint=self.state.fingerprint,
            phase=self.phase,
            server_round=self.server_round,
            num_rounds=self.federation.training.rounds,
        )

    def as_json(self) -> dict[str, Any]:
        """Return all of it, for programs and for the table."""
        return {
            "updated": datetime.now(UTC).isoformat(timespec="seconds"),
            "federation": self.federation.name,
            "fingerprint": self.state.fingerprint,
            "address": self.state.address,
            "phase": self.phase,
            "round": self.server_round,
            "rounds": self.federation.training.rounds,
            "seconds_left": self._seconds_left(),
            "waits_for": self.waits_for or ", ".join(self._being_sent()),
            "without_model": list(self.without_model),
            "labs": [*self._labs(), *invited_lines(self.register)],
        }

    def write(self) -> None:
        """Write ``status.json``."""
        write_atomically(self.state.status_path, json.dumps(self.as_json(), indent=2) + "\n")

    def _labs(self) -> list[dict[str, Any]]:
        found = []
        for lab in self.register.labs():
            away = self.exchange.away_for(lab.name)
            connection = ONLINE if away == 0 else AWAY
            seen = None if away == float("inf") else datetime.now(UTC) - timedelta(seconds=away)
            line = line_of(
                lab.name,
                self._standing(lab, connection),
                self._why(lab),
                last_round=self.last_rounds.get(lab.name),
                last_seen=seen.isoformat(timespec="seconds") if seen else None,
            )
            found.append(line)
        return found

    def _standing(self, lab: EnrolledLab, connection: str) -> str:
        if lab.revoked is not None:
            return REVOKED
        if lab.name in self.roster.excluded:
            return "out"
        return HAS_THE_MODEL if self._has_model(lab.name) else connection

    def _has_model(self, lab: str) -> bool:
        in_run = lab in self.roster.names.values()
        return self.phase == "finished" and in_run and lab not in self.without_model

    def _why(self, lab: EnrolledLab) -> str:
        why = self.roster.excluded.get(lab.name)
        if why == errors.REVOKED and lab.revoked is None:
            return "was revoked during this run, and takes part from the next one on"
        if why is None and lab.revoked is not None:
            return HAS_THE_MODEL if self._has_model(lab.name) else ""
        return why or self._what_is_missing(lab.name)

    def _what_is_missing(self, lab: str) -> str:
        if lab in self._being_sent():
            return "is to get the model now"
        if self.phase == "finished" and lab in self.without_model:
            return NOT_YET
        return self.missing.get(lab, "") if self.phase == "train" else ""

    def _being_sent(self) -> list[str]:
        """Return the labs that the model has been sent to, and that have not said they keep it."""
        if self.phase != "release":
            return []
        return sorted(self.exchange.asked() & set(self.without_model))

    def _seconds_left(self) -> float | None:
        """Return the time that is left, from the median of the rounds so far."""
        lengths = sorted(b - a for a, b in zip(self._times, self._times[1:], strict=False))
        if self.phase != "train" or not lengths or self.waits_for:
            return None
        left = self.federation.training.rounds - self.server_round
        return round(left * lengths[len(lengths) // 2], 1)

    def _entered(self, phase: str) -> None:
        self.phase, self.waits_for = phase, ""
        self._times = [self.clock()]

    def _counted(self, record: RoundRecord) -> None:
        self.server_round, self.waits_for = record.server_round, ""
        self.missing = record.failed | record.quarantined
        self._note_rounds(record)
        self._times.append(self.clock())

    def _note_rounds(self, record: RoundRecord) -> None:
        self.last_rounds |= dict.fromkeys(record.labs, record.server_round)

    def _paused(self, reason: str) -> None:
        self.waits_for = reason
