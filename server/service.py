"""``crossply server start``: listen, wait for labs, run the phases, and close in order."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import grpc

from common.address import split_address
from common.errors import StateError
from common.federation import Federation
from common.link_pb2 import Farewell
from common.messages import max_message_bytes
from server.authority import Authority
from server.checkpoint import Checkpoints
from server.enrolment import Enrolment
from server.exchange import Exchange
from server.link import LinkGrid
from server.link_server import LinkServer
from server.link_service import Agreement, LinkService
from server.logged_rounds import LoggedCheckpoints
from server.register import Register
from server.results import write_page, write_result
from server.rounds import RunOptions, Watcher, run_federation
from server.state import Progress, RoundRecord, RunResult
from server.state_folder import Coordination
from server.status import Status
from server.waiting import wait_for_all, wait_for_those_of

log = logging.getLogger(__name__)

FAREWELL_S = 10.0
"""How long a lab that is connected has to hear that the run is over."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """How a coordinator waits, and where it listens.

    Attributes
    ----------
    wait : float
        Seconds that it waits for labs: at the start for all of them, later for a quorum.
    grace : float
        Seconds that a lab whose connection broke is waited for before a round goes on without it.
    bind : str or None
        ``host:port`` to listen on; by default the port of the address on every interface, or on
        loopback if that is what the address is.
    """

    wait: float
    grace: float
    bind: str | None = None


def serve(state: Coordination, options: ServeOptions) -> Path:
    """Run the federation of a state folder, or what is left of its run.

    Returns
    -------
    Path
        The folder of the result.

    Raises
    ------
    StateError
        If another coordinator runs on the folder, or it cannot be used.
    LinkError
        If the port cannot be had.
    QuorumError
        If too few labs come, or come back, in time; names those that are missing.
    """
    with state.locked():
        federation = state.federation()
        checkpoints = Checkpoints(state.run_folder, state.fingerprint)
        if (progress := checkpoints.load()) is not None and progress.phase == "finished":
            log.info("the run has finished before; nothing is trained")
            write_result(state.run_folder, federation, progress.result())
            if not progress.unreleased:
                write_page(state.run_folder, federation, progress.result())
                return state.run_folder
        register = Register(state.folder)
        exchange = Exchange(grace=options.grace)
        _heed_revocations(register, exchange)
        status = Status(state=state, federation=federation, exchange=exchange, register=register)
        server = _server(state, federation, exchange, status, options)
        log.info("listening on port %d for %s", server.start(), state.address)
        try:
            with _every_second(status, register, exchange):
                result = _run(state, options, status, checkpoints, progress)
                _say_farewell(result, exchange)
        except BaseException:
            exchange.close(Farewell(reason=Farewell.STOPPED))
            raise
        finally:
            server.stop(grace=1.0)
        write_page(state.run_folder, federation, result)
        return state.run_folder


def _run(
    state: Coordination,
    options: ServeOptions,
    status: Status,
    checkpoints: Checkpoints,
    progress: Progress | None,
) -> RunResult:
    invited: set[str] = set()
    if progress is None:
        invited = wait_for_all(status, options.wait)
    else:
        status.resume(progress)
        wait_for_those_of(progress, status, min(options.grace, options.wait))
    register = status.register
    # those that have been put out too: they have a node still, and a code as answer
    enrolled = {lab.node_id: lab.name for lab in register.labs()}
    grid = LinkGrid(status.exchange, enrolled, state.run_id)
    run_options = RunOptions(
        keeper=_Keeper(LoggedCheckpoints(checkpoints, state.run_folder), status),
        watcher=_told(status.watcher()),
        patience=options.wait,
        enrolled=enrolled,
        absent=dict.fromkeys(sorted(invited), "invited, and had not joined when the run began"),
        revoked=lambda: [lab.node_id for lab in register.labs() if lab.revoked],
    )
    result = run_federation(grid, status.federation, run_options)
    status.phase, status.server_round = "finished", status.federation.training.rounds
    return result


@dataclass(frozen=True)
class _Keeper:
    """Checkpoints whose roster the status shows, with rounds and the result beside them."""

    checkpoints: LoggedCheckpoints
    status: Status

    def load(self) -> Progress | None:
        return self.checkpoints.load()

    def save(self, progress: Progress) -> None:
        self.checkpoints.save(progress)
        self.status.roster = progress.roster
        self.status.without_model = progress.unreleased
        if progress.phase == "finished":
            folder = self.status.state.run_folder
            write_result(folder, self.status.federation, progress.result())


def _told(watcher: Watcher) -> Watcher:
    """Return a watcher that writes down what it is told, too."""
    num_before = 0

    def entered(phase: str) -> None:
        log.info("phase: %s", phase)
        watcher.entered(phase)

    def counted(record: RoundRecord) -> None:
        missing = record.failed | record.quarantined
        told = {"round": record.server_round, "labs": len(record.labs)}
        log.info("round counted", extra=told | ({"missing": missing} if missing else {}))
        nonlocal num_before
        if len(record.labs) == 1 != num_before:
            log.warning("%s takes part alone: nothing is shared", record.labs[0])
        num_before = len(record.labs)
        watcher.counted(record)

    def paused(reason: str) -> None:
        log.warning("the run waits: %s", reason)
        watcher.paused(reason)

    return Watcher(entered=entered, counted=counted, paused=paused)


def _server(
    state: Coordination,
    federation: Federation,
    exchange: Exchange,
    status: Status,
    options: ServeOptions,
) -> LinkServer:
    bind = options.bind or default_bind(state.address)
    split_address(bind)
    authority = Authority(state.folder)
    authority.renew_server_certificate(state.host)
    try:
        pair = (state.folder / "server.key", state.folder / "server.crt")
        credentials = grpc.ssl_server_credentials(
            [(pair[0].read_bytes(), pair[1].read_bytes())],
            root_certificates=authority.certificate_pem,
            require_client_auth=True,
        )
    except OSError as error:
        raise StateError(f"{error.filename} cannot be read: {error.strerror}") from error
    register = Register(state.folder)
    service = LinkService(
        agreement=Agreement(fingerprint=state.fingerprint, run_id=state.run_id),
        exchange=exchange,
        register=register,
        enrolment=Enrolment(authority, register, state.fingerprint),
        look=lambda: status.look(version("crossply")),
    )
    return LinkServer(
        service,
        credentials=credentials,
        bind=bind,
        address=state.address,
        max_bytes=max_message_bytes(federation),
    )


def default_bind(address: str) -> str:
    """Return where to listen for an address.

    Examples
    --------
    >>> default_bind("fed.example.org:9443"), default_bind("localhost:9443")
    ('[::]:9443', '127.0.0.1:9443')
    """
    host, port = split_address(address)
    if host == "::1":
        return f"[::1]:{port}"
    return f"127.0.0.1:{port}" if host in LOOPBACK else f"[::]:{port}"


@contextmanager
def _every_second(status: Status, register: Register, exchange: Exchange) -> Iterator[None]:
    """Write the status and heed revocations, each second, in a thread."""
    ended = threading.Event()

    def work() -> None:
        while True:
            try:
                _heed_revocations(register, exchange)
                status.write()
            except Exception:
                # this thread heeds revocations: nothing that fails once may end it
                log.exception("the status cannot be kept up")
            if ended.wait(1.0):
                return

    thread = threading.Thread(target=work, name="status", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=5)
        try:
            status.write()
        except OSError:
            # no room: what ends the run says so, and must be heard
            log.warning("the last status cannot be written")


def _heed_revocations(register: Register, exchange: Exchange) -> None:
    exchange.revoke(lab.name for lab in register.labs() if lab.revoked is not None)


def _say_farewell(result: RunResult, exchange: Exchange) -> None:
    """Let the labs that are there go home."""
    if without := sorted(set(result.labs) - set(result.released)):
        names = ", ".join(without)
        log.warning("%s: without the model; start again when they are there", names)
    exchange.close(Farewell(reason=Farewell.FINISHED))
    until = time.monotonic() + FAREWELL_S
    while exchange.connected() and time.monotonic() < until:
        time.sleep(0.05)
