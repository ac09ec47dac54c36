"""The thread in which the coordinator's gRPC server runs, with its limits."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from common.errors import LinkError
from common.link_pb2 import DESCRIPTOR
from common.link_pb2_grpc import LinkServicer, add_LinkServicer_to_server

log = logging.getLogger(__name__)

SERVICE = DESCRIPTOR.services_by_name["Link"].full_name

MAX_CONNECTIONS = 2000

LIMITS = {
    # who opens a connection has this long for TLS; then it is closed
    "grpc.server_handshake_timeout_ms": 10_000,
    "grpc.max_allowed_incoming_connections": MAX_CONNECTIONS,
    # one stream, one look and one health check are more than a lab needs at once
    "grpc.max_concurrent_streams": 8,
    "grpc.max_metadata_size": 16 * 1024,
    # a lab that answers no ping is gone: its computer sleeps, or a cable is out
    "grpc.keepalive_time_ms": 20_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.http2.min_ping_interval_without_data_ms": 5_000,
    # who is let in by TLS and asks for nothing; a lab's stream is no idle connection
    "grpc.max_connection_idle_ms": 30_000,
    # a second coordinator on the same port is an error, not a partner
    "grpc.so_reuseport": 0,
}


class LinkServer:
    """Serves the link until it is stopped.

    Parameters
    ----------
    service : LinkServicer
    credentials : grpc.ServerCredentials
    bind : str
        ``host:port``; port 0 takes a free one.
    address : str
        ``host:port`` as invites name it.
    max_bytes : int
        Largest message that is accepted.

    Raises
    ------
    LinkError
        From `start`, if the port cannot be had.
    """

    def __init__(
        self,
        service: LinkServicer,
        *,
        credentials: grpc.ServerCredentials,
        bind: str,
        address: str,
        max_bytes: int,
    ) -> None:
        self._service = service
        self._credentials = credentials
        self._bind = bind
        self._address = address
        self._options = [*LIMITS.items(), ("grpc.max_receive_message_length", max_bytes)]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="link", daemon=True)
        self._server: grpc.aio.Server | None = None

    def start(self) -> int:
        """Listen, and return the port."""
        self._thread.start()
        return int(self._run(self._listen()))

    def stop(self, grace: float) -> None:
        """Let labs take their farewells for some seconds, then close."""
        if self._server is not None:
            self._run(self._server.stop(grace))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=grace + 5)

    async def _listen(self) -> int:
        server = grpc.aio.server(options=self._options)
        add_LinkServicer_to_server(self._service, server)
        probes = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(probes, server)
        for name in (health.OVERALL_HEALTH, SERVICE):
            await probes.set(name, health_pb2.HealthCheckResponse.SERVING)
        try:
            port = server.add_secure_port(self._bind, self._credentials)
        except RuntimeError as error:
            raise LinkError(
                f"cannot listen on {self._bind}: is the port in use, or the address of another "
                f"machine? Free it: labs come to {self._address}, as their invites say; or name "
                f"another with --bind HOST:PORT, and forward {self._address} to it"
            ) from error
        await server.start()
        self._server = server
        return port

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=60)
