"""The same two apps on Flower's own SuperLink and SuperNodes: real processes, TLS, loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
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
RUN_S = 240.0


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
                start_new_session=True,
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
        )
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()
        found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
        return found

    def close(self) -> None:
        # Flower starts processes of its own; all of them are in the session of the first
        for process in reversed(self.processes):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


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
        "training": {"rounds": 2, "quorum": 1.0, "round_deadline": "2 min"},
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
    tmp_path: Path,
    free_port: Callable[[], int],
    until: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CROSSPLY_CACHE", cluster.environment["CROSSPLY_CACHE"])
    # features into the cache that all share, and what the run must come to
    expected = in_one_process(tmp_path, agreement)
    address = f"localhost:{free_port()}"
    tls = create_coordination(agreement, address, tmp_path / "tls").folder
    cluster.start(
        "superlink",
        "flower-superlink",
        *("--port", address.split(":")[1], "--disable-runtime-dependency-installation"),
        *("--ssl-ca-certfile", tls / "ca.crt", "--ssl-certfile", tls / "server.crt"),
        *("--ssl-keyfile", tls / "server.key"),
    )
    for name in LABS:
        node_config = f'lab="{tmp_path / name}" federation="{agreement}"'
        cluster.start(
            name,
            "flower-supernode",
            *("--superlink", address, "--root-certificates", tls / "ca.crt"),
            *("--port", free_port(), "--node-config", node_config),
        )
    connection = {"address": address, "root-certificates": str(tls / "ca.crt")}
    home = Path(cluster.environment_of("operator")["FLWR_HOME"])
    (home / "config.toml").write_text(tomli_w.dumps({"superlink": {"here": connection}}))
    until(lambda: ready(cluster), "SuperLink and SuperNodes are up")

    paths = f'federation="{agreement}" result="{tmp_path / "result"}"'
    started = cluster.flwr("run", ROOT, "here", "--run-config", paths)
    run_id = started["run-id"]
    status = until(lambda: ended(cluster, run_id), "the run ends", RUN_S)

    assert status == "finished:completed", cluster.logs()
    model = Model.load(tmp_path / "result" / "model.safetensors")
    assert list(model.head) == sorted(expected.head)
    for name, array in expected.head.items():
        np.testing.assert_array_equal(model.head[name], array)
    record = json.loads((tmp_path / "result" / "result.json").read_text())
    assert record["labs"] == ["north", "south"]
    assert [entry["labs"] for entry in record["rounds"]] == [["north", "south"]] * 2


def ready(cluster: Cluster) -> bool:
    return False


def ended(cluster: Cluster, run_id: str) -> str | None:
    (run,) = cluster.flwr("ls", "here", "--run-id", run_id)["runs"]
    return run["status"] if run["status"].startswith("finished") else None
