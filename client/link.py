"""A lab's end of the link: one outbound stream, tasks down, replies up, in one warm process.

Each task goes through the lab's gate to the same ClientApp that a simulation uses, and each reply
back through the gate into the lab's log before it leaves. A connection that breaks is opened
again; a task that was asked before is answered as before, not computed anew.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TypeAlias

import grpc
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.findings import printable
from client.gate import Gate
from client.membership import Membership
from client.sent_log import SentLog
from client.tls import Diagnosis, diagnose
from common.errors import INTERNAL, CrossplyError, LinkError, RequestError, known_code
from common.link_pb2 import Farewell, FromLab, Hello, Reply, Task, ToLab
from common.link_pb2_grpc import LinkStub
from common.threads import one_thread
from common.wire import from_content, to_content

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

REMEMBERED = 4
"""Replies that are kept for being asked again; an error is not, its cause may be gone by then."""

WELCOME_TIMEOUT_S = 20.0

Event: TypeAlias = ToLab | grpc.RpcError | None
"""A message from the coordinator, why the stream broke, or that it ended."""


@dataclass(kw_only=True)
class Answerer:
    """Answers tasks: the lab's gate, its ClientApp, its log, and each task once.

    Attributes
    ----------
    app : ClientApp
    context : Context
    gate : Gate
    sent : SentLog
    held : callable
        Returns a context in which the process does not stop.
    """

    app: ClientApp
    context: Context
    gate: Gate
    sent: SentLog
    held: Callable[[], AbstractContextManager[None]] = nullcontext
    _answered: OrderedDict[str, Reply] = field(default_factory=OrderedDict)

    def answer(self, task: Task) -> Reply:
        """Return the reply to a task; errors are codes."""
        reply = self._answered.get(task.message_id) or self._first_reply(task)
        with self.held():
            reply = self._logged(task, reply)
            if reply.WhichOneof("answer") == "content":
                self._remember(reply)
        return reply

    def _first_reply(self, task: Task) -> Reply:
        reply = Reply(message_id=task.message_id)
        try:
            reply.content.CopyFrom(to_content(self._compute(task)))
        except CrossplyError as error:
            log.warning("%s was not answered: %s", task.message_type[:40], error)
            reply.error = error.code
        except Exception:
            log.exception("%s failed", task.message_type[:40])
            reply.error = INTERNAL
        return reply

    def _remember(self, reply: Reply) -> None:
        self._answered[reply.message_id] = reply
        while len(self._answered) > REMEMBERED:
            self._answered.popitem(last=False)

    def _compute(self, task: Task) -> RecordDict:
        content = from_content(task.content, RequestError)
        self.gate.check_task(task.message_type, content)
        with one_thread():
            reply = self.app(_message(task, content, self.context), self.context)
        if reply.has_error():
            raise _RefusedError(known_code(reply.error.reason))
        return self.gate.check_reply(task.message_type, reply.content)

    def _logged(self, task: Task, reply: Reply) -> Reply:
        """Write down what is about to leave; what cannot be written down does not leave."""
        try:
            self.sent.append(task.message_type, reply)
        except CrossplyError as error:
            log.error("a reply is kept back: %s", error)
            return Reply(message_id=task.message_id, error=error.code)
        return reply


class _RefusedError(CrossplyError):
    """The lab's app has answered with a code; its text is in the log already."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code  # type: ignore[misc]  # of this one instance


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
        pause, since = FIRST_PAUSE_S, time.monotonic()
        while True:
            connected, event = self._connect_once()
            if connected:
                pause, since = FIRST_PAUSE_S, time.monotonic()
            if isinstance(event, ToLab) and self._is_over(event.farewell):
                return
            if isinstance(event, grpc.RpcError):
                self._raise_if_hopeless(event)
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

    def _raise_if_hopeless(self, error: grpc.RpcError) -> None:
        code, details = error.code(), printable(str(error.details()))
        if code in REFUSED:
            raise LinkError(f"the coordinator refuses: {details}")
        log.info("no connection: %s", details)
        diagnosis = self._diagnose()
        if diagnosis is not None and diagnosis.lasting:
            raise LinkError(diagnosis.sentence)

    def _why_not(self) -> str:
        diagnosis = self._diagnose()
        if diagnosis is None:
            return f"{self.membership.address} ends every connection; ask the coordinator why"
        return diagnosis.sentence

    def _diagnose(self) -> Diagnosis | None:
        member = self.membership
        return diagnose(member.address, member.ca_path, member.certificate_path, member.key_path)


def _message(task: Task, content: RecordDict, context: Context) -> Message:
    message = Message(content, context.node_id, task.message_type)
    message.metadata.__dict__["_message_id"] = task.message_id
    return message


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
