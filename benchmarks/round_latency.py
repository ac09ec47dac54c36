"""Seconds a round: the link against Flower's SuperLink with SuperNodes, in one run.

python -m benchmarks.round_latency [--rounds N] [--flower-rounds N] [--labs N] [--idle N]

Labs send a head of 1.3 MB back as it came, without training. On the link all else is as in a real
run: mutual TLS, the lab's gate and its log (flushed to the disk), screening, averaging, and the
state that is written after each round. On SuperLink the two apps do nothing but Flower's FedAvg and
an echo, and import no torch: what is left is Flower's own. The floor is the same bytes over
plain TCP on loopback. Below it: a coordinator with many idle labs, its memory and its CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import grpc
import psutil
import tomli_w
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.flower_cluster import Cluster, flower_environment
from benchmarks.loopback import Consortium, Running, warm_context
from benchmarks.small_labs import maker_of_small_labs
from client.membership import open_membership
from common.link_pb2 import FromLab, Hello
from common.link_pb2_grpc import LinkStub

HIDDEN = 128
NUM_FEATURES = 2560
HEAD_BYTES = 4 * (NUM_FEATURES * HIDDEN + 2 * HIDDEN + 1)

NO_TRAINING = """
import client.app
client.app.train_head = lambda head, *arguments: (head, 0.0)
"""

STAMPED = """
import time, server.rounds
one_round = server.rounds._train_one_round
def stamped(*arguments):
    with open({path!r}, "a") as file:
        file.write(f"{{time.perf_counter()}}\\n")
    return one_round(*arguments)
server.rounds._train_one_round = stamped
"""

ECHO = """
import time
import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

lab = ClientApp()

@lab.train()
def train(message, context):
    content = {"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 20})}
    return Message(RecordDict(content), reply_to=message)

class Stamped(FedAvg):
    path = ""
    def configure_train(self, *arguments):
        with open(self.path, "a") as file:
            file.write(f"{time.perf_counter()}\\n")
        return super().configure_train(*arguments)

coordinator = ServerApp()

@coordinator.main()
def main(grid, context):
    config = context.run_config
    nodes = int(config["nodes"])
    strategy = Stamped(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
    strategy.path = str(config["times"])
    head = {"weight": Array(np.zeros(int(config["floats"]), np.float32))}
    strategy.start(grid, ArrayRecord(head), num_rounds=int(config["rounds"]))
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--labs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--flower-rounds", type=int, default=6)
    parser.add_argument("--idle", type=int, default=100, metavar="LABS")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="crossply-") as name:
        folder = Path(name)
        os.environ["CROSSPLY_CACHE"] = str(folder / "features")
        link = link_rounds(folder / "link", options.labs, options.rounds)
        flower = flower_rounds(folder / "flower", options.labs, options.flower_rounds)
        _print_rounds(options.labs, link, flower, floor_s(options.labs))
        _print_idle(options.idle, *idle(folder / "idle", options.idle))


def consortium(folder: Path) -> Consortium:
    """Return a consortium of small labs."""
    folder.mkdir()
    return Consortium(folder, maker_of_small_labs(folder), warm_context())


def link_rounds(folder: Path, num_labs: int, num_rounds: int) -> list[float]:
    """Return the seconds of each round over the link."""
    site = consortium(folder)
    names = [f"lab-{number}" for number in range(num_labs)]
    times = folder / "times"
    try:
        site.joined(*names, hidden=(HIDDEN,), rounds=num_rounds + 1)
        coordinator = site.coordinator(before=STAMPED.format(path=str(times)))
        labs = [site.lab(name, before=NO_TRAINING) for name in names]
        for running in (coordinator, *labs):
            if running.exit_code(300) != 0:
                raise SystemExit(running.text())
    finally:
        site.close()
    return _differences(times)


def flower_rounds(folder: Path, num_labs: int, num_rounds: int) -> list[float]:
    """Return the seconds of each round on SuperLink and SuperNodes."""
    folder.mkdir()
    app = folder / "app"
    app.mkdir()
    (app / "echo.py").write_text(ECHO)
    components = {"serverapp": "echo:coordinator", "clientapp": "echo:lab"}
    times = folder / "times"
    defaults = {"nodes": num_labs, "rounds": num_rounds + 1, "floats": HEAD_BYTES // 4, "times": ""}
    settings = {
        "project": {"name": "echo", "version": "1.0.0", "license": "Apache-2.0"},
        "tool": {
            "flwr": {"app": {"publisher": "crossply", "components": components, "config": defaults}}
        },
    }
    (app / "pyproject.toml").write_text(tomli_w.dumps(settings))
    agreement = folder / "federation.toml"
    agreement.write_text(tomli_w.dumps(maker_of_small_labs(folder)("lab").federation))
    cluster = Cluster(folder, flower_environment())
    try:
        cluster.open(agreement, {f"node-{number}": "x=1" for number in range(num_labs)})
        status = cluster.run(app, f'times="{times}"', 60.0 * (num_rounds + 1))
        if status != "finished:completed":
            raise SystemExit(cluster.logs())
    finally:
        cluster.close()
    return _differences(times)


def floor_s(num_labs: int) -> float:
    """Return the median seconds for the bytes of a round over plain TCP on loopback."""
    size = 2 * num_labs * HEAD_BYTES
    payload, times = bytes(size), []
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as near,
        listener.accept()[0] as far,
    ):
        for _ in range(20):
            began = time.perf_counter()
            sending = threading.Thread(target=near.sendall, args=(payload,))
            sending.start()
            left = size
            while left:
                left -= len(far.recv(1 << 20))
            sending.join()
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def idle(folder: Path, num_labs: int, seconds: float = 20.0) -> tuple[dict[str, float], ...]:
    """Return memory and CPU of a coordinator without labs, and with many that only wait."""
    site = consortium(folder)
    try:
        site.agree(rounds=1)
        coordinator = site.coordinator("--wait", "1 h")
        # somebody who never comes: the run waits
        site.invite("late")
        alone = _cost(coordinator, seconds)
        names = [f"lab-{number:04}" for number in range(num_labs)]
        data = site.make_lab("data").path
        for name in names:
            _join(site, name, data)
        crowd = asyncio.run(_with_streams(site, names, coordinator, seconds))
    finally:
        site.close()
    return alone, crowd


def _join(site: Consortium, name: str, data: Path) -> None:
    from client.joining import join
    from common.invite import read_invite

    join(read_invite(site.invite(name)), data, site.state(name))


async def _with_streams(
    site: Consortium, names: Sequence[str], coordinator: Running, seconds: float
) -> dict[str, float]:
    """Keep a stream of each lab open, all in this process, while the coordinator is measured."""
    channels, calls = [], []
    for name in names:
        membership = open_membership(site.state(name))
        channel = grpc.aio.secure_channel(membership.address, membership.credentials())
        call = LinkStub(channel).Connect()
        hello = Hello(version=version("crossply"), fingerprint=membership.fingerprint)
        await call.write(FromLab(hello=hello))
        if (await call.read()).WhichOneof("kind") != "welcome":
            raise SystemExit(f"{name} is not let in")
        channels.append(channel)
        calls.append(call)
    cost = await asyncio.to_thread(_cost, coordinator, seconds)
    for call, channel in zip(calls, channels, strict=True):
        call.cancel()
        await channel.close()
    return cost


def _cost(running: Running, seconds: float) -> dict[str, float]:
    process = psutil.Process(running.process.pid)
    time.sleep(1.0)
    before = process.cpu_times()
    time.sleep(seconds)
    after = process.cpu_times()
    used = (after.user + after.system) - (before.user + before.system)
    return {
        "own_mb": process.memory_full_info().uss / 1e6,
        "rss_mb": process.memory_info().rss / 1e6,
        "cpu_percent": 100 * used / seconds,
    }


def _differences(path: Path) -> list[float]:
    stamps = [float(line) for line in path.read_text().splitlines()]
    return [after - before for before, after in pairwise(stamps)]


def _print_rounds(
    num_labs: int, link: Sequence[float], flower: Sequence[float], floor: float
) -> None:
    size = HEAD_BYTES / 1e6
    table = Table(title=f"{num_labs} labs, a head of {size:.2f} MB, no training", box=SIMPLE_HEAD)
    for column in ("", "rounds", "median s", "min s", "max s", "times the link"):
        table.add_column(column, justify="left" if not column else "right")
    middle = statistics.median(link)
    for name, times in (
        ("crossply's link", link),
        ("SuperLink and SuperNodes", flower),
        ("floor: the bytes over TCP", [floor]),
    ):
        median = statistics.median(times)
        numbers = [f"{value:.4f}" for value in (median, min(times), max(times))]
        count = "" if times == [floor] else str(len(times))
        table.add_row(name, count, *numbers, f"{median / middle:.2f}")
    Console(width=100).print(table)


def _print_idle(num_labs: int, alone: dict[str, float], crowd: dict[str, float]) -> None:
    table = Table(title="a coordinator that waits", box=SIMPLE_HEAD)
    for column in ("labs connected", "own memory MB", "resident MB", "CPU % of a core"):
        table.add_column(column, justify="right")
    for count, cost in ((0, alone), (num_labs, crowd)):
        table.add_row(
            str(count),
            f"{cost['own_mb']:.0f}",
            f"{cost['rss_mb']:.0f}",
            f"{cost['cpu_percent']:.2f}",
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
