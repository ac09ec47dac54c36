"""Flower's SuperLink and SuperNodes on loopback, with TLS: processes that are ended by id."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import tomli_w

from benchmarks.loopback import free_port, until
from server.state_folder import create_coordination

BIN = Path(sys.executable).parent

NAME = "here"
"""Of the SuperLink in the operator's configuration."""


@dataclass
class Cluster:
    """SuperLink and SuperNodes, each with a home, a log and a session of its own."""

    folder: Path
    environment: dict[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def environment_of(self, role: str) -> dict[str, str]:
        """Return the environment of a role, with a home of its own."""
        home = self.folder / f"home-{role}"
        home.mkdir(exist_ok=True)
        return self.environment | {"FLWR_HOME": str(home)}

    def start(self, role: str, command: str, *arguments: object) -> subprocess.Popen[bytes]:
        """Start one of Flower's commands."""
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
        """Return where a role's output goes."""
        return self.folder / f"{role}.log"

    def logs(self) -> str:
        """Return the last of what everybody has printed."""
        return "\n".join(path.read_text()[-3000:] for path in sorted(self.folder.glob("*.log")))

    def flwr(self, *arguments: object) -> dict[str, Any]:
        """Run `flwr`, and return what it says."""
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
        """End every process, and what it has started."""
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

    def open(self, agreement: Path, nodes: Mapping[str, str]) -> None:
        """Start a SuperLink and SuperNodes, and wait until all are online.

        Parameters
        ----------
        agreement : Path
            A federation file: the certificates are those of a coordinator's folder.
        nodes : mapping of str to str
            Name -> the node's configuration, as `--node-config` takes it.
        """
        # SuperLink's own helper calls it by this address, and so must the certificate
        address = f"127.0.0.1:{free_port()}"
        tls = create_coordination(agreement, address, self.folder / "tls").folder
        self.start(
            "superlink",
            "flower-superlink",
            *("--port", address.split(":")[1], "--disable-runtime-dependency-installation"),
            *("--ssl-ca-certfile", tls / "ca.crt", "--ssl-certfile", tls / "server.crt"),
            *("--ssl-keyfile", tls / "server.key"),
        )
        for name, config in nodes.items():
            self.start(
                name,
                "flower-supernode",
                *("--superlink", address, "--root-certificates", tls / "ca.crt"),
                *("--port", free_port(), "--node-config", config),
            )
        connection = {"address": address, "root-certificates": str(tls / "ca.crt")}
        home = Path(self.environment_of("operator")["FLWR_HOME"])
        (home / "config.toml").write_text(tomli_w.dumps({"superlink": {NAME: connection}}))
        until(lambda: self._num_online() == len(nodes), "all SuperNodes are online")

    def run(self, app: Path, config: str, timeout: float) -> str:
        """Run an app to its end, and return its status."""
        run_id = self.flwr("run", app, NAME, "--run-config", config)["run-id"]
        status: str = until(lambda: self._ended(run_id), "the run ends", timeout)
        return status

    def _num_online(self) -> int:
        # a SuperLink that is not up yet knows of no nodes
        nodes = self.flwr("supernode", "list", NAME).get("nodes", [])
        return sum(node["status"] == "online" for node in nodes)

    def _ended(self, run_id: str) -> str | None:
        (run,) = self.flwr("ls", NAME, "--run-id", run_id)["runs"]
        status = str(run["status"])
        return status if status.startswith("finished") else None


def flower_environment(**more: str) -> dict[str, str]:
    """Return the environment in which Flower's commands find each other and report nothing."""
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return os.environ | quiet | {"PATH": path} | more
