"""A lab's end of the link: one outbound stream, tasks down, replies up, in one warm process.

A connection that breaks is opened again, for as long as a person waits, or for ever.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import TypeAlias

import grpc

from client.findings import printable
from client.membership import Membership
from client.tls import Diagnosis, diagnose
from common.errors import LinkError
from common.link_pb2 import Farewell, FromLab, Hello, Reply, Task, ToLab
from common.link_pb2_grpc import LinkStub

log = logging.getLogger(__name__)

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # backing off is ours: a channel is made for each attempt
    ("grpc.enable_retries", 0),
)

REFUSED = {
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
}
"""What the coordinator answers to a lab that no waiting will let in."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0

FAREWELL_PATIENCE_S = 30.0
"""How long a lab that has the model tries to hear that the run is over."""

WELCOME_TIMEOUT_S = 20.0

Event: TypeAlias = ToLab | grpc.RpcError | None
"""A message from the coordinator, why the stream broke, or that it ended."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """Keeps a lab connected to its coordinator.

    Attributes
    ----------
    membership : Membership
    answer : callable
        Returns the reply to a task.
    patience : float
        Seconds without a connection after which `serve` gives up; infinity for a service.
    has_model : callable
        Returns whether the lab has the model that the run ends with: then a coordinator that does
        not come back has nothing more to ask.
    max_bytes : int
        Largest message that is accepted.
    """

    membership: Membership
    answer: Callable[[Task], Reply]
    patience: float
    has_model: Callable[[], bool]
    max_bytes: int

    def serve(self) -> None:
        """Answer tasks until the run is over.

        Raises
        ------
        LinkError
            If the coordinator is not reached for longer than the patience lasts, if it is not
            the one that the lab joined, or if it does not let the lab in.
        """
        pause, since, said = FIRST_PAUSE_S, time.monotonic(), ""
        while True:
            connected, event = self._connect_once()
            if connected:
                pause, since, said = FIRST_PAUSE_S, time.monotonic(), ""
            if isinstance(event, ToLab) and self._is_over(event.farewell):
                return
            if isinstance(event, grpc.RpcError):
                said = self._explained(event, said)
            has_model = self.has_model()
            patience = min(self.patience, FAREWELL_PATIENCE_S) if has_model else self.patience
            left = since + patience - time.monotonic()
            if left <= 0 and has_model:
                log.info("the coordinator is gone, and the model is here")
                return
            if left <= 0:
                raise LinkError(self._why_not())
            # jitter: a hundred labs do not come back in one instant
            time.sleep(min(pause * random.uniform(0.5, 1.0), max(left, 0.0)))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _connect_once(self) -> tuple[bool, Event]:
        """Keep up one stream to its end; return whether it was welcomed, and its last event."""
        membership = self.membership
        outgoing: queue.SimpleQueue[FromLab | None] = queue.SimpleQueue()
        hello = Hello(version=version("crossply"), fingerprint=membership.fingerprint)
        outgoing.put(FromLab(hello=hello))
        limit = ("grpc.max_receive_message_length", self.max_bytes)
        with grpc.secure_channel(
            membership.address, membership.credentials(), options=(*CHANNEL_OPTIONS, limit)
        ) as channel:
            call = LinkStub(channel).Connect(iter(outgoing.get, None))
            events = _in_background(call)
            welcomed = False
            try:
                while True:
                    event = _latest(events, None if welcomed else WELCOME_TIMEOUT_S)
                    kind = event.WhichOneof("kind") if isinstance(event, ToLab) else None
                    if kind == "welcome" and not welcomed:
                        log.info("connected to %s as %s", membership.address, membership.lab)
                    welcomed = welcomed or kind is not None
                    if isinstance(event, ToLab) and kind == "task":
                        outgoing.put(FromLab(reply=self.answer(event.task)))
                    elif kind != "welcome":
                        return welcomed, event
            finally:
                outgoing.put(None)
                call.cancel()

    def _is_over(self, farewell: Farewell) -> bool:
        if farewell.reason == Farewell.FINISHED:
            return True
        if farewell.reason == Farewell.REVOKED:
            raise LinkError(
                f"{self.membership.lab} has been revoked; ask the coordinator for a new invite"
            )
        if farewell.reason == Farewell.REPLACED:
            raise LinkError(
                f"another process has connected as {self.membership.lab}; keep one of them"
            )
        log.info("the coordinator stops; it may come back")
        return False

    def _explained(self, error: grpc.RpcError, said: str) -> str:
        """Say why there is no connection, once, or end where waiting mends nothing."""
        code, details = error.code(), printable(str(error.details()))
        if code in REFUSED:
            raise LinkError(f"the coordinator refuses: {details}")
        diagnosis = self._diagnose()
        if diagnosis is not None and diagnosis.lasting:
            raise LinkError(diagnosis.sentence)
        why = f"the connection broke ({details})" if diagnosis is None else diagnosis.sentence
        if why != said:
            limit = "for ever" if self.patience == float("inf") else f"for {self.patience:.0f} s"
            log.info("no connection, trying %s: %s", limit, why)
        return why

    def _why_not(self) -> str:
        diagnosis = self._diagnose()
        if diagnosis is None:
            return f"{self.membership.address} ends every connection; ask the coordinator why"
        return diagnosis.sentence

    def _diagnose(self) -> Diagnosis | None:
        member = self.membership
        return diagnose(member.address, member.ca_path, member.certificate_path, member.key_path)


def _in_background(call: Iterator[ToLab]) -> queue.SimpleQueue[Event]:
    """Read a stream in a thread, so that what comes during a task is seen after it."""
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def read() -> None:
        try:
            for message in call:
                events.put(message)
            events.put(None)
        except grpc.RpcError as error:
            events.put(error)

    threading.Thread(target=read, name="link-reader", daemon=True).start()
    return events


def _latest(events: queue.SimpleQueue[Event], timeout: float | None) -> Event:
    """Wait for an event, and skip those that a later one has made void: tasks that were late.

    Nothing in time counts as the end of the stream. Once a lab is welcome there is no limit of
    ours: gRPC's keepalive ends a stream whose other end is gone.
    """
    try:
        event = events.get(timeout=timeout)
    except queue.Empty:
        return None
    while _is_task(event) and not events.empty():
        event = events.get()
    return event


def _is_task(event: Event) -> bool:
    return isinstance(event, ToLab) and event.WhichOneof("kind") == "task"
