"""Flower's Ray engine: the bits of a run in one process, and an end to every failure."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from threading import Thread
from typing import cast

import numpy as np
import psutil
import pytest
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from client.app import client_app
from client.lab import Lab, split_lab
from client.specimens import Specimens
from common.errors import ConfigurationError, EngineError, LabDataError
from common.federation import Federation
from common.messages import HANDSHAKE, Terms, message_to
from server.rounds import RunOptions, Watcher, run_federation
from server.state import RoundRecord, RunResult
from simulation.engine import make_grid, on_grid, require_engine
from simulation.grid import InProcessGrid
from simulation.ray import flower_ray
from simulation.ray.flower_process import FAILED, NUMBERS, relay
from simulation.ray.flower_ray import RayGrid

needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason='Ray is not installed: pip install "crossply[ray]"'
)


def agreement(rounds: int = 3) -> Federation:
    return Federation.model_validate(
        {
            "name": "test",
            "targets": {"strength": {"unit": "MPa", "range": [0, 200]}},
            "imaging": {"scale": "fit"},
            "backbone": {"name": "resnet18"},
            "head": {"hidden": [8]},
            "training": {"rounds": rounds, "strategy": "fedadam", "round_deadline": "60 s"},
            "privacy": {"min_specimens": 4},
        }
    )


def make_labs(federation: Federation) -> dict[str, Lab]:
    labs = {}
    for name, size in {"aachen": 30, "bremen": 20, "celle": 25}.items():
        generator = np.random.default_rng(size)
        made = Specimens(
            lab=name,
            ids=tuple(f"{name}-{row}" for row in range(size)),
            features=generator.gamma(2.0, 0.2, (size, federation.num_features)).astype(np.float32),
            targets=generator.uniform(50, 150, (size, 1)),
            groups=np.arange(size),
        )
        labs[name] = split_lab(made, federation, np.arange(size) % 4 == 0)
    return labs


def run(engine: str, federation: Federation, watcher: Watcher | None = None) -> RunResult:
    options = RunOptions(watcher=watcher or Watcher())
    return on_grid(
        engine, make_labs(federation), lambda grid: run_federation(grid, federation, options)
    )


def assert_equal(one: RunResult, other: RunResult) -> None:
    assert one.history == other.history
    assert one.head.keys() == other.head.keys()
    for name, array in other.head.items():
        np.testing.assert_array_equal(one.head[name], array)
    for lab, sums in other.evaluation.errors.items():
        np.testing.assert_array_equal(one.evaluation.errors[lab].squared, sums.squared)


@pytest.fixture
def ended() -> Iterator[None]:
    """See that nothing that a test started goes on."""
    before = set(psutil.Process().children(recursive=True))
    yield
    left = set(psutil.Process().children(recursive=True)) - before
    _, alive = psutil.wait_procs(left, timeout=10)
    assert alive == []


@needs_ray
@pytest.mark.usefixtures("ended")
def test_a_run_on_ray_has_the_bits_of_a_run_in_one_process_and_stays_on_loopback() -> None:
    federation, listening = agreement(), set[str]()

    def counted(record: RoundRecord) -> None:
        for one in psutil.Process().children(recursive=True):
            open_ports = (c for c in one.net_connections() if c.status == psutil.CONN_LISTEN)
            listening.update(c.laddr.ip.removeprefix("::ffff:") for c in open_ports)

    on_ray = run("flower-ray", federation, Watcher(counted=counted))
    assert_equal(on_ray, run("inprocess", federation))
    assert listening == {"127.0.0.1"}


@needs_ray
@pytest.mark.usefixtures("ended")
def test_ray_that_dies_ends_the_run_with_a_sentence() -> None:
    def counted(record: RoundRecord) -> None:
        if record.server_round == 2:
            tree = psutil.Process().children(recursive=True)
            (raylet,) = [one for one in tree if one.name() == "raylet"]
            raylet.send_signal(signal.SIGKILL)

    with pytest.raises(EngineError, match=r"Flower's Ray engine .*; choose --engine batched"):
        run("flower-ray", agreement(rounds=100), Watcher(counted=counted))


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigurationError, match=r'pip install "crossply\[ray\]"'):
        require_engine("flower-ray")
    with pytest.raises(ConfigurationError, match="which is not installed here"):
        run("flower-ray", agreement())
    require_engine("batched")


Relay = Callable[[InProcessGrid], tuple[RayGrid, Connection]]


@pytest.fixture
def relayed() -> Iterator[Relay]:
    """Put the wire between a coordinator and a grid that stands for Flower's."""
    threads: list[Thread] = []
    wires: list[Connection] = []

    def between(grid: InProcessGrid) -> tuple[RayGrid, Connection]:
        ours, theirs = Pipe()
        thread = Thread(target=relay, args=(grid, theirs, len(grid.get_node_ids())))
        thread.start()
        threads.append(thread)
        wires.extend((ours, theirs))
        return RayGrid(ours, len(grid.get_node_ids())), ours

    yield between
    for wire in wires[::2]:
        wire.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    for wire in wires[1::2]:
        wire.close()


def test_the_wire_changes_nothing(relayed: Relay) -> None:
    federation = agreement()
    inner = make_grid("inprocess", make_labs(federation))
    grid, _ = relayed(inner)
    assert_equal(run_federation(grid, federation), run("inprocess", federation))


def test_a_record_that_all_are_sent_travels_once() -> None:
    ours, theirs = Pipe()
    record = Terms.of(agreement()).to_record()
    with ours, theirs:
        grid = RayGrid(ours, 3)
        messages = [message_to(node, HANDSHAKE, record) for node in (2, 3, 4)]
        theirs.send_bytes(NUMBERS + b'["x", "y", "z"]')
        assert grid.push_messages(messages) == ["x", "y", "z"]
        head = json.loads(theirs.recv_bytes())
        assert head["records"] == 1
        assert [node for node, *_ in head["messages"]] == [2, 3, 4]
        theirs.recv_bytes()
        assert not theirs.poll()
    assert [message.metadata.message_id for message in messages] == ["x", "y", "z"]


def test_a_lab_whose_process_is_lost_ends_the_run(relayed: Relay) -> None:
    federation = agreement()
    labs = make_labs(federation)
    honest = client_app(lambda context: labs[str(context.node_config["lab"])])
    # what Flower makes of an exception of its backend
    lost = Error(0, "<class 'ActorDiedError'>:<'it died\nsteel.csv'>")

    def lossy(message: Message, context: Context) -> Message:
        is_lost = context.node_config["lab"] == "bremen"
        return Message(lost, reply_to=message) if is_lost else honest(message, context)

    app = cast(ClientApp, lossy)
    grid, _ = relayed(InProcessGrid(app, {name: {"lab": name} for name in labs}))
    with pytest.raises(EngineError, match="lost the process of a lab: <class 'ActorDie") as found:
        run_federation(grid, federation)
    assert "steel.csv" not in str(found.value)


def test_a_lab_that_fails_by_itself_costs_that_lab_alone(relayed: Relay) -> None:
    federation = agreement()
    labs = make_labs(federation)

    def open_lab(context: Context) -> Lab:
        if context.node_config["lab"] == "celle":
            raise LabDataError("steel.csv: 612.5 MPa")
        return labs[str(context.node_config["lab"])]

    inner = InProcessGrid(client_app(open_lab), {name: {"lab": name} for name in labs})
    grid, _ = relayed(inner)
    result = run_federation(grid, federation)
    assert result.labs == ("aachen", "bremen")
    assert list(result.excluded.values()) == ["lab-data"]


def test_an_engine_that_says_nothing_ends_the_run_in_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flower_ray, "UP_WITHIN_S", 0.2)
    ours, theirs = Pipe()
    with ours, theirs, pytest.raises(EngineError, match="has not come up in 0 s; see that Ray"):
        RayGrid(ours, 3).get_node_ids()


def test_an_engine_that_is_up_and_takes_no_request_ends_the_run_in_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flower_ray, "TAKEN_WITHIN_S", 0.2)
    ours, theirs = Pipe()
    message = message_to(2, HANDSHAKE, Terms.of(agreement()).to_record())
    with ours, theirs, pytest.raises(EngineError, match="has taken no request in 0 s"):
        grid = RayGrid(ours, 1)
        grid._is_up = True
        grid.push_messages([message])


def test_an_engine_that_ends_says_why_if_it_can() -> None:
    ours, theirs = Pipe()
    with ours:
        with theirs:
            theirs.send_bytes(FAILED + b"RuntimeError: no room in /dev/shm")
        grid = RayGrid(ours, 3)
        with pytest.raises(EngineError, match="failed: RuntimeError: no room in /dev/shm; choose"):
            grid.get_node_ids()
        with pytest.raises(EngineError, match="ended before the run did"):
            grid.get_node_ids()


def test_an_engine_that_is_gone_when_it_is_asked() -> None:
    ours, theirs = Pipe()
    with ours:
        theirs.close()
        message = message_to(2, HANDSHAKE, Terms.of(agreement()).to_record())
        grid = RayGrid(ours, 1)
        with pytest.raises(EngineError, match="ended before the run did"):
            grid.push_messages([message])


def test_the_processes_of_the_engine_find_what_this_one_imports() -> None:
    environment = flower_ray._environment()
    assert environment["FLWR_TELEMETRY_ENABLED"] == environment["RAY_USAGE_STATS_ENABLED"] == "0"
    assert set(filter(None, sys.path)) <= set(environment["PYTHONPATH"].split(os.pathsep))
