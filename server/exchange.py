"""Tasks out, replies in: which labs are connected, what each was asked, what each answered.

Knows neither gRPC nor Flower. The coordinator's thread asks and waits; the link's thread tells
of labs that come, answer and leave. One task at a time is open for a lab: it is delivered when the
lab is there, delivered again when the lab comes back, and answered once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from common.errors import NO_REPLY, NOT_CONNECTED, REVOKED
from common.link_pb2 import Farewell, Reply, Task

log = logging.getLogger(__name__)

Answer: TypeAlias = Reply | str
"""What a lab sent, or the code of why nothing came."""


class Connection(Protocol):
    """A lab's open stream, as far as the exchange uses it; neither method blocks."""

    def send(self, task: Task) -> None:
        """Send a task."""

    def close(self, farewell: Farewell) -> None:
        """Say why no more tasks come, and close."""


@dataclass(kw_only=True)
class Presence:
    """Where a lab is: connected, or since when not.

    Attributes
    ----------
    connection : Connection or None
    left : float
        When it was last here, in the clock's seconds; minus infinity if it never was.
    revoked : bool
    """

    connection: Connection | None = None
    left: float = float("-inf")
    revoked: bool = False


class Exchange:
    """The tasks and replies of all labs, safe for several threads.

    Parameters
    ----------
    grace : float
        Seconds that a lab whose connection broke is waited for before a task goes on without it.
    clock : callable
        Returns seconds that never go back.

    Examples
    --------
    >>> exchange = Exchange(grace=0.0)
    >>> exchange.ask({"aachen": Task(message_id="1")}, timeout=1.0)
    {'aachen': 'not connected'}
    """

    def __init__(self, *, grace: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._grace = grace
        self._clock = clock
        self._changed = threading.Condition(threading.RLock())
        self._labs: dict[str, Presence] = {}
        self._open: dict[str, Task] = {}
        self._answers: dict[str, Reply] = {}
        self._farewell: Farewell | None = None

    def arrive(self, lab: str, connection: Connection) -> bool:
        """Take up a lab's connection and deliver its open task; False if the lab is revoked.

        An earlier connection of the same lab is closed: it is a dead one, or a second process.
        """
        with self._changed:
            presence = self._labs.setdefault(lab, Presence())
            if presence.revoked:
                return False
            if presence.connection is not None:
                presence.connection.close(Farewell(reason=Farewell.REPLACED))
            presence.connection = connection
            if lab in self._open:
                connection.send(self._open[lab])
            if self._farewell is not None:
                connection.close(self._farewell)
            self._changed.notify_all()
            return True

    def leave(self, lab: str, connection: Connection) -> None:
        """Note that a connection is gone, unless the lab has a newer one already."""
        with self._changed:
            presence = self._labs[lab]
            if presence.connection is connection:
                presence.connection, presence.left = None, self._clock()
                self._changed.notify_all()

    def answer(self, lab: str, reply: Reply) -> bool:
        """Count a lab's reply, once; False if it answers nothing that is open."""
        with self._changed:
            task = self._open.get(lab)
            if task is None or task.message_id != reply.message_id:
                log.info("a late or repeated reply is dropped", extra={"lab": lab})
                return False
            del self._open[lab]
            self._answers[lab] = reply
            self._changed.notify_all()
            return True

    def revoke(self, labs: Iterable[str]) -> None:
        """Let exactly these labs be out: close their connections, and let nobody wait for them.

        A lab that was out and is not named again has come back with a new invite.
        """
        with self._changed:
            out = set(labs)
            for lab in out - set(self._labs):
                self._labs[lab] = Presence()
            for lab, presence in self._labs.items():
                if lab in out and not presence.revoked and presence.connection is not None:
                    presence.connection.close(Farewell(reason=Farewell.REVOKED))
                presence.revoked = lab in out
            self._changed.notify_all()

    def close(self, farewell: Farewell) -> None:
        """Close every connection with a farewell, and those that come from now on."""
        with self._changed:
            self._farewell = farewell
            for presence in self._labs.values():
                if presence.connection is not None:
                    presence.connection.close(farewell)

    def ask(self, tasks: Mapping[str, Task], timeout: float) -> dict[str, Answer]:
        """Deliver a task to each lab and wait for the replies.

        Parameters
        ----------
        tasks : mapping of str to Task
            By lab. Replies to earlier tasks no longer count.
        timeout : float
            Seconds.

        Returns
        -------
        dict of str to Reply or str
            For every lab asked, its reply or a code: ``no reply in time`` from a lab that is
            connected, ``not connected`` from one that was away for longer than the grace, or
            ``revoked``.
        """
        until = self._clock() + timeout
        with self._changed:
            self.post(tasks)
            try:
                self._wait(lambda: self._hopeful(tasks, until), until)
                return {lab: self._answers.get(lab) or self._why_not(lab) for lab in tasks}
            finally:
                for lab in tasks:
                    self._open.pop(lab, None)
                    self._answers.pop(lab, None)

    def post(self, tasks: Mapping[str, Task]) -> None:
        """Deliver a task to each lab, and do not wait."""
        with self._changed:
            for lab, task in tasks.items():
                self._answers.pop(lab, None)
                self._open[lab] = task
                presence = self._labs.setdefault(lab, Presence())
                if presence.connection is not None:
                    presence.connection.send(task)

    def take(self, lab: str) -> Reply | None:
        """Return the reply to the lab's posted task once, or None if it has not come."""
        with self._changed:
            return self._answers.pop(lab, None)

    def asked(self) -> set[str]:
        """Return the labs that have a task which they have not answered."""
        with self._changed:
            return set(self._open)

    def wait_for(self, labs: Iterable[str], timeout: float) -> None:
        """Wait until all these labs are connected, or have been revoked, or the time is over."""
        wanted = set(labs)
        until = self._clock() + timeout
        with self._changed:
            self._wait(lambda: self._clock() < until and wanted - self._settled(), until)

    def connected(self) -> set[str]:
        """Return the labs that are connected."""
        with self._changed:
            return self._connected()

    def away_for(self, lab: str) -> float:
        """Return how many seconds ago a lab was last here: 0 if it is, infinity if it never was."""
        with self._changed:
            presence = self._labs.get(lab, Presence())
            return 0.0 if presence.connection is not None else self._clock() - presence.left

    def _connected(self) -> set[str]:
        return {lab for lab, presence in self._labs.items() if presence.connection is not None}

    def _settled(self) -> set[str]:
        """Return the labs that nobody needs to wait for: connected, or out."""
        out = {lab for lab, presence in self._labs.items() if presence.revoked}
        return self._connected() | out

    def _hopeful(self, asked: Iterable[str], until: float) -> bool:
        """Return whether a reply may still come in time."""
        now = self._clock()
        if now >= until:
            return False
        return any(
            not presence.revoked
            and (presence.connection is not None or now < presence.left + self._grace)
            for presence in (self._labs[lab] for lab in asked if lab in self._open)
        )

    def _wait(self, waiting: Callable[[], object], until: float) -> None:
        while waiting():
            # a grace that ends wakes nobody: look again soon
            self._changed.wait(min(0.2, max(until - self._clock(), 0.001)))

    def _why_not(self, lab: str) -> str:
        presence = self._labs[lab]
        if presence.revoked:
            return REVOKED
        return NOT_CONNECTED if presence.connection is None else NO_REPLY
