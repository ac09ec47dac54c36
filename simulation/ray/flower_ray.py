"""Virtual labs on Flower's own Ray engine: the same two apps, a process for each core.

The coordinator runs here. Flower and Ray run in a process that is started for it
(`simulation.ray.flower_process`), with a session of its own: whatever becomes of them, they end
with it, and the run here ends with a sentence. Labs' specimens lie in files, which Ray's processes
open: a message carries none.

Where ``RAY_ADDRESS`` names a cluster that runs already, it is used, and the files must lie where
all its machines find them: ``TMPDIR`` says where. Otherwise Ray is started here, on loopback.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from flwr.app import Message
from flwr.common.serde import message_from_proto, recorddict_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage

from client.lab import Lab
from common.errors import EngineError, known_code, shortened
from server.grid import RunGrid
from simulation.grid import ReplyGrid
from simulation.ray.flower_process import FAILED, NODES, NUMBERS, PULL_S, REPLY
from simulation.ray.lab_files import write_labs

T = TypeVar("T")

UP_WITHIN_S = 180.0
"""From the start of Ray to the first answer of a lab; a machine under load takes a minute."""

TAKEN_WITHIN_S = 60.0
"""From a request to its being given to Flower, once the engine is up."""

ENDS_WITHIN_S = 20.0

ADVICE = "choose --engine batched, or try again"

UNKNOWN = known_code(None)


def on_ray(labs: Mapping[str, Lab], work: Callable[[RunGrid], T]) -> T:
    """Give `work` a grid of labs on Flower's Ray engine, and return what it returns.

    Parameters
    ----------
    labs : mapping of str to Lab
        By name.
    work : callable

    Raises
    ------
    EngineError
        If the engine does not come up in `UP_WITHIN_S`, or ends before the work does.
    """
    with tempfile.TemporaryDirectory(prefix="crossply-labs-") as folder:
        write_labs(list(labs.values()), Path(folder))
        with _engine(folder, len(labs)) as grid:
            return work(grid)


@contextmanager
def _engine(labs: str, num_labs: int) -> Iterator[RayGrid]:
    """Start the engine, and end every process of it."""
    ours, theirs = socket.socketpair()
    # Ray's processes may write a last line of their logs while the folder is removed
    ray_files = tempfile.TemporaryDirectory(prefix="crossply-ray-", ignore_cleanup_errors=True)
    with ray_files as ray_folder, Connection(ours.detach()) as wire:
        with theirs:
            command = ["simulation.ray.flower_process", str(theirs.fileno()), labs, ray_folder]
            engine = subprocess.Popen(
                [sys.executable, "-m", *command, str(num_labs)],
                pass_fds=[theirs.fileno()],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            yield RayGrid(wire, num_labs)
        finally:
            # it ends by itself when it finds this closed
            wire.close()
            with suppress(subprocess.TimeoutExpired):
                engine.wait(ENDS_WITHIN_S)
            with suppress(ProcessLookupError):
                os.killpg(engine.pid, signal.SIGKILL)
            engine.wait()


def _environment() -> dict[str, str]:
    ours = {
        # its processes find what this one imports
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
        "OMP_NUM_THREADS": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        # it warns of what will change, unless it has changed already
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    if not os.environ.get("RAY_ADDRESS"):
        # Ray's name for: one machine alone, on its loopback address
        ours["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    return dict(os.environ) | ours


class RayGrid(ReplyGrid):
    """Virtual labs on the other side of a socket, where Flower's engine runs them.

    Parameters
    ----------
    wire : Connection
    num_labs : int
    run_id : int
    """

    def __init__(self, wire: Connection, num_labs: int, run_id: int = 1) -> None:
        super().__init__(run_id)
        self._wire = wire
        self._num_labs = num_labs
        self._up_until = time.monotonic() + UP_WITHIN_S
        self._is_up = False
        self._nodes: list[int] = []
        self._numbers: list[str] | None = None

    def get_node_ids(self) -> list[int]:
        """Return the labs' nodes, once all are there."""
        while len(self._nodes) < self._num_labs:
            self._hear()
        return self._nodes

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Deliver messages; a record that many are sent travels once."""
        asked = list(messages)
        records = {id(message.content): message.content for message in asked}
        places = {key: place for place, key in enumerate(records)}
        head = {
            "records": len(records),
            "messages": [
                [m.dst_node_id, m.message_type, m.group_id, places[id(message.content)]]
                for message in asked
                for m in [message.metadata]
            ],
        }
        self._numbers = None
        until = max(time.monotonic() + TAKEN_WITHIN_S, 0.0 if self._is_up else self._up_until)
        try:
            self._wire.send_bytes(json.dumps(head).encode())
            for record in records.values():
                self._wire.send_bytes(recorddict_to_proto(record).SerializeToString())
        except OSError as error:
            self._hear_why(error)
        while self._numbers is None:
            self._hear()
            if time.monotonic() > until:
                raise EngineError(
                    f"Flower's Ray engine has taken no request in {TAKEN_WITHIN_S:.0f} s; {ADVICE}"
                )
        for message, number in zip(asked, self._numbers, strict=True):
            message.metadata.__dict__["_message_id"] = number
        return self._numbers

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Deliver messages, and return the replies that come in time.

        Before the first one has come, the time that the engine takes to come up is added.
        """
        waiting = self.push_messages(messages)
        until = float("inf") if timeout is None else time.monotonic() + timeout
        if not self._is_up:
            until = max(until, self._up_until)
        while not set(waiting) <= self._replies.keys() and time.monotonic() < until:
            self._hear()
        return self.pull_messages(waiting)

    def _hear(self) -> None:
        """Take in a frame, if one comes before long."""
        try:
            if self._wire.poll(PULL_S):
                self._take(self._wire.recv_bytes())
        except (EOFError, OSError) as error:
            raise EngineError(f"Flower's Ray engine ended before the run did; {ADVICE}") from error
        if not self._is_up and time.monotonic() > self._up_until:
            raise EngineError(
                f"Flower's Ray engine has not come up in {UP_WITHIN_S:.0f} s; see that Ray starts "
                "on this machine, or choose --engine batched"
            )

    def _hear_why(self, error: OSError) -> None:
        """Take in what came before the other side closed, which may say why it did."""
        while True:
            self._hear()
            if not self._wire.poll():
                raise EngineError(f"Flower's Ray engine cannot be reached; {ADVICE}") from error

    def _take(self, frame: bytes) -> None:
        kind, content = frame[:1], frame[1:]
        if kind == NODES:
            self._nodes = json.loads(content)
        elif kind == NUMBERS:
            self._numbers = json.loads(content)
        elif kind == REPLY:
            self._is_up = True
            reply = message_from_proto(ProtoMessage.FromString(content))
            _require_lab(reply)
            self._replies[reply.metadata.reply_to_message_id] = reply
        elif kind == FAILED:
            why = shortened(content.decode(errors="replace"))
            raise EngineError(f"Flower's Ray engine failed: {why}; {ADVICE}")


def _require_lab(reply: Message) -> None:
    """Refuse what is no answer of a lab: labs tell of their own errors by codes that are known."""
    if reply.has_error() and known_code(reply.error.reason) == UNKNOWN:
        why = shortened(str(reply.error.reason).partition("\n")[0])
        raise EngineError(f"Flower's Ray engine lost the process of a lab: {why}; {ADVICE}")
