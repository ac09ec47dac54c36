"""The same two apps on Flower's own SuperLink and SuperNodes: real processes, TLS, loopback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tomli_w

from client.app import client_app
from client.opening import open_lab
from common.bundle import Model
from common.federation import load_federation
from server.rounds import run_federation
from server.state_folder import create_coordination
from simulation.grid import InProcessGrid

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

LABS = ("north", "south")

RUN_S = 300.0
"""Flower starts a process for each message, which imports torch anew."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Cluster:
    """SuperLink and SuperNodes, each with a home, a log and a session of its own."""

    folder: Path
    environment: dict[str, str]
    processes: list[subprocess.Popen] = field(default_factory=list)

    def environment_of(self, role: str) -> dict[str, str]:
        home = self.folder / f"home-{role}"
        home.mkdir(exist_ok=True)
        return self.environment | {"FLWR_HOME": str(home)}

    def start(self, role: str, command: str, *arguments: object) -> subprocess.Popen:
        with self.log(role).open("wb") as log:
            process = subprocess.Popen(
                [BIN / command, *map(str, arguments)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment_of(role),
                cwd=self.folder,
            )
        self.processes.append(process)
        return process

    def log(self, role: str) -> Path:
        return self.folder / f"{role}.log"

    def logs(self) -> str:
        return "\n".join(path.read_text()[-3000:] for path in sorted(self.folder.glob("*.log")))

    def flwr(self, *arguments: object) -> dict[str, Any]:
        done = subprocess.run(
            [BIN / "flwr", *map(str, arguments), "--format", "json"],
            capture_output=True,
            text=True,
            timeout=60,
            env=self.environment_of("operator"),
            cwd=self.folder,
            check=True,
        )
        found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
        return found

    def close(self) -> None:
        # each starts processes of its own, and SuperLink's are in another session
        children = [
            child
            for process in self.processes
            if process.poll() is None
            for child in psutil.Process(process.pid).children(recursive=True)
        ]
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait(10)
        for child in psutil.wait_procs(children, timeout=5)[1]:
            child.kill()
        assert not psutil.wait_procs(children, timeout=5)[1]


@pytest.fixture
def cluster(tmp_path: Path, feature_cache: Path) -> Iterator[Cluster]:
    environment = os.environ | {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "CROSSPLY_CACHE": str(feature_cache),
    }
    made = Cluster(tmp_path, environment)
    yield made
    made.close()


@pytest.fixture
def agreement(tmp_path: Path, make_lab: Callable[[str], Any]) -> Path:
    """The labs' folders, and the agreement beside them."""
    labs = [make_lab(name) for name in LABS]
    path = tmp_path / "federation.toml"
    terms = labs[0].federation | {
        "backbone": {"name": "efficientnet_lite0"},
        "head": {"hidden": [8]},
        "training": {"rounds": 1, "quorum": 1.0, "round_deadline": "2 min"},
        "privacy": {"min_specimens": 4},
    }
    path.write_text(tomli_w.dumps(terms))
    return path


def in_one_process(folder: Path, agreement: Path) -> Any:
    federation = load_federation(agreement)
    labs = {name: open_lab(folder / name, federation) for name in LABS}
    app = client_app(lambda context: labs[str(context.node_config["lab"])])
    return run_federation(InProcessGrid(app, {name: {"lab": name} for name in LABS}), federation)


def test_a_run_on_superlink_and_supernodes_has_the_bits_of_a_run_in_one_process(
    cluster: Cluster,
    agreement: Path,
    until: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CROSSPLY_CACHE", cluster.environment["CROSSPLY_CACHE"])
    expected = in_one_process(cluster.folder, agreement)
    start(cluster, agreement)
    until(lambda: num_online(cluster) == len(LABS), "all SuperNodes are online")

    result = cluster.folder / "result"
    paths = f'federation="{agreement}" result="{result}"'
    started = cluster.flwr("run", ROOT, "here", "--run-config", paths)
    status = until(lambda: ended(cluster, started["run-id"]), "the run ends", RUN_S)

    assert status == "finished:completed", cluster.logs()
    model = Model.load(result / "model.safetensors")
    assert model.head.keys() == expected.head.keys()
    for name, array in expected.head.items():
        np.testing.assert_array_equal(model.head[name], array)
    record = json.loads((result / "result.json").read_text())
    assert record["labs"] == ["north", "south"]
    assert [entry["labs"] for entry in record["rounds"]] == [["north", "south"]]


def start(cluster: Cluster, agreement: Path) -> None:
    """Start SuperLink and SuperNodes, with the certificates of a coordinator's folder."""
    # SuperLink's own helper calls it by this address, and so must the certificate
    address = f"127.0.0.1:{free_port()}"
    tls = create_coordination(agreement, address, cluster.folder / "tls").folder
    cluster.start(
        "superlink",
        "flower-superlink",
        *("--port", address.split(":")[1], "--disable-runtime-dependency-installation"),
        *("--ssl-ca-certfile", tls / "ca.crt", "--ssl-certfile", tls / "server.crt"),
        *("--ssl-keyfile", tls / "server.key"),
    )
    for name in LABS:
        node_config = f'lab="{cluster.folder / name}" federation="{agreement}"'
        cluster.start(
            name,
            "flower-supernode",
            *("--superlink", address, "--root-certificates", tls / "ca.crt"),
            *("--port", free_port(), "--node-config", node_config),
        )
    connection = {"address": address, "root-certificates": str(tls / "ca.crt")}
    home = Path(cluster.environment_of("operator")["FLWR_HOME"])
    (home / "config.toml").write_text(tomli_w.dumps({"superlink": {"here": connection}}))


def num_online(cluster: Cluster) -> int:
    # a SuperLink that is not up yet knows of no nodes
    nodes = cluster.flwr("supernode", "list", "here").get("nodes", [])
    return sum(node["status"] == "online" for node in nodes)


def ended(cluster: Cluster, run_id: str) -> str | None:
    (run,) = cluster.flwr("ls", "here", "--run-id", run_id)["runs"]
    status = str(run["status"])
    return status if status.startswith("finished") else None
