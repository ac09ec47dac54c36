"""The coordinator's gRPC server: one stream a lab, under mutual TLS.

A lab is who its client certificate says, whatever a message claims. The server runs on an event
loop in a thread of its own: a hundred idle labs cost a hundred coroutines.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from importlib.metadata import version

import grpc

from common.errors import CrossplyError, EnrolmentError, LinkError
from common.identity import Identity, identity_of
from common.link_pb2 import (
    EnrolReply,
    EnrolRequest,
    Farewell,
    FromLab,
    Hello,
    LookReply,
    LookRequest,
    Task,
    ToLab,
    Welcome,
)
from common.link_pb2_grpc import LinkServicer
from server.enrolment import Enrolment
from server.exchange import Exchange
from server.register import EnrolledLab, Register

log = logging.getLogger(__name__)

HELLO_TIMEOUT_S = 10.0

MOST_UNASKED = 20
"""Replies on one stream that answer nothing open: late ones, and no flood."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What a lab must hold too: crossply's version and the federation's fingerprint."""

    fingerprint: str
    run_id: int

    def refusal(self, hello: Hello) -> str | None:
        """Return why a lab may not take part, or None.

        Examples
        --------
        >>> Agreement(fingerprint="ab12", run_id=1).refusal(Hello(version="0", fingerprint="ab12"))
        'you run crossply 0 and the coordinator ...; install the same version'
        """
        ours = version("crossply")
        if hello.version != ours:
            return (
                f"you run crossply {hello.version[:20]} and the coordinator {ours}; "
                "install the same version"
            )
        if hello.fingerprint != self.fingerprint:
            return (
                f"you hold the agreement {hello.fingerprint[:12]} and the coordinator "
                f"{self.fingerprint[:12]}; ask for a new invite"
            )
        return None


class LabStream:
    """One lab's open stream, written to from any thread.

    One task waits at most: to a lab that does not read, the newest is all that matters.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._task: Task | None = None
        self._farewell: Farewell | None = None
        self._ended = False

    def send(self, task: Task) -> None:
        """Send a task."""
        self._loop.call_soon_threadsafe(self._note, "_task", task)

    def close(self, farewell: Farewell) -> None:
        """Say why no more tasks come, and close."""
        self._loop.call_soon_threadsafe(self._note, "_farewell", farewell)

    def end(self) -> None:
        """Close without a word: the lab is gone."""
        self._loop.call_soon_threadsafe(self._note, "_ended", True)

    async def messages(self) -> AsyncIterator[ToLab]:
        """Yield what is to be written, up to and including a farewell."""
        while not self._ended:
            await self._changed.wait()
            self._changed.clear()
            task, self._task = self._task, None
            if task is not None and not self._ended:
                yield ToLab(task=task)
            if self._farewell is not None and not self._ended:
                yield ToLab(farewell=self._farewell)
                return

    def _note(self, name: str, value: object) -> None:
        setattr(self, name, value)
        self._changed.set()


class LinkService(LinkServicer):
    """Answers labs: enrols them, welcomes them, and joins their streams to the exchange.

    Parameters
    ----------
    agreement : Agreement
    exchange : Exchange
    register : Register
    enrolment : Enrolment
    look : callable
        Returns where the run is, for a lab's doctor.
    """

    def __init__(
        self,
        *,
        agreement: Agreement,
        exchange: Exchange,
        register: Register,
        enrolment: Enrolment,
        look: Callable[[], LookReply],
    ) -> None:
        self._agreement = agreement
        self._exchange = exchange
        self._register = register
        self._enrolment = enrolment
        self._look = look

    async def Enrol(  # noqa: N802 - gRPC's name
        self, request: EnrolRequest, context: grpc.aio.ServicerContext
    ) -> EnrolReply:
        """Sign a lab's certificate request, against an invite."""
        identity = await _identity(context, "invite")
        try:
            return await asyncio.to_thread(self._enrolment.enrol, identity, request)
        except EnrolmentError as error:
            log.warning("an enrolment is refused: %s", error, extra={"invite": identity.name})
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except CrossplyError as error:
            log.error("an enrolment failed: %s", error, extra={"invite": identity.name})
            await context.abort(grpc.StatusCode.INTERNAL, "the coordinator's log says why")

    async def Look(  # noqa: N802 - gRPC's name
        self, request: LookRequest, context: grpc.aio.ServicerContext
    ) -> LookReply:
        """Tell a lab's doctor the time, the version, the agreement and where the run is."""
        await self._enrolled(context)
        return self._look()

    async def Connect(  # noqa: N802 - gRPC's name
        self, requests: AsyncIterator[FromLab], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[ToLab]:
        """Keep up one lab's stream until it leaves or is told farewell."""
        lab = await self._enrolled(context)
        hello = await _hello(requests, context)
        if (refusal := self._agreement.refusal(hello)) is not None:
            log.warning("a lab is refused: %s", refusal, extra={"lab": lab.name})
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, refusal)
        yield ToLab(welcome=Welcome(run_id=self._agreement.run_id))
        was_here = self._exchange.away_for(lab.name) < math.inf
        stream = LabStream()
        if not self._exchange.arrive(lab.name, stream):
            yield ToLab(farewell=Farewell(reason=Farewell.REVOKED))
            return
        log.info("a lab has come%s", " back" if was_here else "", extra={"lab": lab.name})
        reading = asyncio.create_task(self._read(lab.name, requests, stream))
        try:
            async for message in stream.messages():
                yield message
        finally:
            reading.cancel()
            self._exchange.leave(lab.name, stream)
            log.info("a lab has gone", extra={"lab": lab.name})

    async def _read(self, lab: str, requests: AsyncIterator[FromLab], stream: LabStream) -> None:
        unasked = 0
        try:
            async for message in requests:
                if message.WhichOneof("kind") == "reply":
                    unasked += not self._exchange.answer(lab, message.reply)
                if unasked > MOST_UNASKED:
                    log.warning("a lab answers what nobody asks; cut off", extra={"lab": lab})
                    return
        except (grpc.RpcError, grpc.aio.UsageError) as error:
            log.info("a lab's stream broke: %s", type(error).__name__, extra={"lab": lab})
        finally:
            stream.end()

    async def _enrolled(self, context: grpc.aio.ServicerContext) -> EnrolledLab:
        identity = await _identity(context, "lab")
        try:
            return self._register.lab_with(identity)
        except EnrolmentError as error:
            log.warning("a lab is refused: %s", error, extra={"lab": identity.name})
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        except CrossplyError as error:
            log.error("a lab cannot be looked up: %s", error, extra={"lab": identity.name})
            await context.abort(grpc.StatusCode.INTERNAL, "the coordinator's log says why")


async def _identity(context: grpc.aio.ServicerContext, role: str) -> Identity:
    certificates = context.auth_context().get("x509_pem_cert", ())
    try:
        identity = identity_of(next(iter(certificates), b""))
    except LinkError as error:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
    if identity.role != role:
        await context.abort(
            grpc.StatusCode.PERMISSION_DENIED, f"this needs a certificate of the role {role}"
        )
    return identity


async def _hello(requests: AsyncIterator[FromLab], context: grpc.aio.ServicerContext) -> Hello:
    try:
        first = await asyncio.wait_for(anext(requests), HELLO_TIMEOUT_S)
    except (TimeoutError, StopAsyncIteration):
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "no hello came in time")
    if first.WhichOneof("kind") != "hello":
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a stream begins with a hello")
    return first.hello
