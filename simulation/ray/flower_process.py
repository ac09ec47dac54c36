"""Flower's Ray engine in a process of its own, which `simulation.ray.flower_ray` starts and ends.

python -m simulation.ray.flower_process DESCRIPTOR LABS RAY NUMBER

DESCRIPTOR is a socket to the coordinator, LABS the folder that `simulation.ray.lab_files` wrote,
RAY a folder for Ray's own files. The ServerApp here is a relay: what it reads from the socket it
sends to the labs on Flower's grid, and what they answer it writes to the socket. When the other end
is closed, the run is over.

A frame is one letter and what belongs to it. To here: a request, JSON, and then the records that
it speaks of. From here: the nodes, once; the numbers of the messages of a request; a reply; or one
line that says what went wrong. Nothing is pickled on the way.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

from flwr.app import Context, Message
from flwr.common.serde import message_to_proto, recorddict_from_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from flwr.serverapp import Grid, ServerApp

from client.app import client_app
from common.cores import usable_cores
from simulation.ray.lab_files import lab_of_node

NODES, NUMBERS, REPLY, FAILED = b"n", b"i", b"r", b"f"

PULL_S = 0.02

STORE_BYTES = 256 * 2**20
"""Of shared memory for messages on their way."""

LONGEST_FOLDER = 40
"""A longer path has no room for the names of Ray's sockets; they lie in Ray's own folder then."""


def main() -> None:
    """Run until the other end is closed."""
    descriptor, labs, ray_folder, number = sys.argv[1:]
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    with Connection(int(descriptor)) as wire:
        try:
            _run(wire, Path(labs), ray_folder, int(number))
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            with suppress(OSError):
                wire.send_bytes(FAILED + f"{type(error).__name__}: {lines[0]}".encode())
            raise
        finally:
            # the one that made them may have been killed
            for folder in (labs, ray_folder):
                shutil.rmtree(folder, ignore_errors=True)


def _run(wire: Connection, labs: Path, ray_folder: str, num_labs: int) -> None:
    from flwr.simulation import run_simulation

    _start_ray(ray_folder)
    server = ServerApp()

    @server.main()
    def coordinate(grid: Grid, context: Context) -> None:
        # closed in the midst of it, it is over as well
        with suppress(BrokenPipeError, ConnectionResetError):
            relay(grid, wire, num_labs)

    run_simulation(
        server_app=server,
        client_app=client_app(partial(lab_of_node, labs)),
        num_supernodes=num_labs,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )


def _start_ray(folder: str) -> None:
    """Start Ray on this machine, or connect to the cluster that the environment names."""
    import ray

    environment = {name: os.environ[name] for name in ("PYTHONPATH", "OMP_NUM_THREADS")}
    options: dict[str, Any] = {
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        "runtime_env": {"env_vars": environment},
    }
    if not os.environ.get("RAY_ADDRESS"):
        options |= {
            "address": "local",
            "num_cpus": usable_cores(),
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
        }
        if len(folder) <= LONGEST_FOLDER:
            options["_temp_dir"] = folder
    ray.init(**options)


def relay(grid: Grid, wire: Connection, num_labs: int) -> None:
    """Send to the labs on a grid what is read from a wire, and write there what they answer.

    Parameters
    ----------
    grid : Grid
    wire : Connection
    num_labs : int
        Flower registers its virtual nodes while this runs already; so many are waited for.
    """
    requests: Queue[list[bytes] | None] = Queue()
    Thread(target=_read, args=(wire, requests), daemon=True).start()
    while len(nodes := list(grid.get_node_ids())) < num_labs:
        # nothing is asked before the nodes are told: all that comes is the end
        with suppress(Empty):
            requests.get(timeout=PULL_S)
            return
    wire.send_bytes(NODES + json.dumps(nodes).encode())
    waiting: set[str] = set()
    while True:
        with suppress(Empty):
            request = requests.get(timeout=PULL_S)
            if request is None:
                return
            numbers = list(grid.push_messages(_messages(request)))
            waiting |= set(numbers)
            wire.send_bytes(NUMBERS + json.dumps(numbers).encode())
        for reply in grid.pull_messages(waiting) if waiting else ():
            waiting.discard(reply.metadata.reply_to_message_id)
            wire.send_bytes(REPLY + message_to_proto(reply).SerializeToString())


def _read(wire: Connection, requests: Queue[list[bytes] | None]) -> None:
    """Read requests, always: two ends that both wait for room to write would wait for ever."""
    try:
        while True:
            head = wire.recv_bytes()
            count = json.loads(head)["records"]
            requests.put([head, *(wire.recv_bytes() for _ in range(count))])
    except (EOFError, OSError):
        requests.put(None)


def _messages(request: list[bytes]) -> list[Message]:
    head, *records = request
    contents = [recorddict_from_proto(ProtoRecordDict.FromString(record)) for record in records]
    # made anew: their run and sender are those of Flower's engine
    return [
        Message(contents[content], dst_node_id=node, message_type=kind, group_id=group)
        for node, kind, group, content in json.loads(head)["messages"]
    ]


if __name__ == "__main__":
    main()
