"""A consortium on loopback: a coordinator and labs as processes of their own, ended by id.

The commands are crossply's own. The processes are forked from a server that has imported torch
and Flower once (multiprocessing's forkserver), which spares each of them seconds of importing.
Tests of faults and benchmarks of the link share it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import tomli_w
from click.testing import Result
from typer.testing import CliRunner

import crossply
from benchmarks.proxy import Proxy
from common.bundle import Model

COMMAND = """
import os, sys
log = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.dup2(log, 1), os.dup2(log, 2)
os.environ.update({environment!r})
sys.argv = {argv!r}
sys.stdout, sys.stderr = open(1, "w", buffering=1), open(2, "w", buffering=1)
{before}
import crossply
crossply.main()
"""

PRELOADED = ["server.service", "client.service", "client.joining", "crossply"]

TIMEOUT_S = 60.0

SLOW_TRAINING = """
import time, client.app
fast = client.app.train_head
def train_head(*arguments):
    time.sleep({seconds})
    return fast(*arguments)
client.app.train_head = train_head
"""


def slow_training(seconds: float) -> str:
    """Return what makes a lab's training take longer, to be run in its process beforehand."""
    return SLOW_TRAINING.format(seconds=seconds)


def until(condition: Callable[[], Any], what: str, timeout: float = TIMEOUT_S) -> Any:
    """Wait for a condition and return what it gave."""
    end = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {timeout} s: {what}"
        time.sleep(0.02)
    return found


def free_port() -> int:
    """Return a port on loopback that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Running:
    """A process that runs a command."""

    process: ForkServerProcess
    log: Path

    def text(self) -> str:
        """Return what it has printed so far."""
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    def says(self, words: str, timeout: float = TIMEOUT_S) -> None:
        """Wait until it prints some words."""
        until(lambda: words in self.text() or self.ended(), words, timeout)
        assert words in self.text(), self.text()

    def ended(self) -> bool:
        """Return whether it has ended."""
        return not self.process.is_alive()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """End it at once, by its id."""
        with suppress(ProcessLookupError):
            self.send(signal.SIGKILL)
        self.process.join(10)

    def exit_code(self, timeout: float = TIMEOUT_S) -> int:
        """Wait for its end, and return its exit code."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"still runs:\n{self.text()}"
        return self.process.exitcode


@dataclass
class Consortium:
    """One coordinator and its labs, each in folders of its own."""

    folder: Path
    make_lab: Callable[[str], Any]
    context: ForkServerContext
    port: int = field(default_factory=free_port)
    proxy: Proxy | None = None
    running: list[Running] = field(default_factory=list)
    started: int = 0

    def agree(
        self,
        *,
        hidden: Sequence[int] = (8,),
        projection: str = "none",
        cross_evaluation: bool = False,
        **training: Any,
    ) -> Path:
        """Write the federation file and make the coordinator's state folder."""
        agreement = self.make_lab("template").federation | {
            "backbone": {"name": "efficientnet_lite0"},
            "head": {"hidden": list(hidden), "projection": projection},
            "training": {"rounds": 3, "quorum": 1.0, "round_deadline": "30 s"} | training,
            "privacy": {"min_specimens": 4, "cross_evaluation": cross_evaluation},
        }
        path = self.folder / "federation.toml"
        path.write_text(tomli_w.dumps(agreement))
        self.do("server", "init", path, "--address", self.address, "--state", self.server)
        return path

    @property
    def server(self) -> Path:
        """The coordinator's state folder."""
        return self.folder / "server"

    @property
    def address(self) -> str:
        """The address that labs are told: the proxy's, where there is one."""
        return f"localhost:{self.proxy.port if self.proxy else self.port}"

    def through_a_proxy(self) -> Proxy:
        """Put a proxy between the labs and the coordinator; before `agree`."""
        self.proxy = Proxy(self.port)
        return self.proxy

    def state(self, lab: str) -> Path:
        """Return a lab's state folder."""
        return self.folder / f"state-{lab}"

    def do(self, *arguments: object) -> Result:
        """Run a command in this process; it must succeed."""
        result = self.tries(*arguments)
        assert result.exit_code == 0, (result.output, result.exception)
        return result

    def tries(self, *arguments: object) -> Result:
        """Run a command in this process."""
        return CliRunner().invoke(crossply.app, [str(argument) for argument in arguments])

    def invite(self, lab: str, *options: object) -> Path:
        """Invite a lab, and return the invite."""
        path = self.folder / f"{lab}.invite"
        self.do("server", "invite", lab, "--state", self.server, "--out", path, *options)
        return path

    def join(self, lab: str) -> None:
        """Invite a lab and let it join; the coordinator must be running."""
        path = self.invite(lab)
        data = self.make_lab(f"data-{lab}")
        fingerprint = json.loads(path.read_text())["fingerprint"]
        self.do(
            *("lab", "join", path, "--data", data.path, "--state", self.state(lab)),
            *("--yes", "--fingerprint", fingerprint[:12]),
        )

    def start(self, *arguments: object, before: str = "", **environment: str) -> Running:
        """Start a command as a process."""
        self.started += 1
        log = self.folder / f"{self.started:03d}-{'-'.join(map(str, arguments[:2]))}.log"
        argv = ["crossply", *(str(argument) for argument in arguments)]
        code = COMMAND.format(log=str(log), environment=environment, argv=argv, before=before)
        process = self.context.Process(target=exec, args=(code, {}))
        process.start()
        made = Running(process, log)
        self.running.append(made)
        return made

    def coordinator(self, *options: object, before: str = "") -> Running:
        """Start the coordinator, and wait until it listens."""
        here = ("--state", self.server, "--bind", f"127.0.0.1:{self.port}")
        made = self.start("server", "start", *here, *options, before=before)
        until(lambda: "listening" in made.text() or made.ended(), "the coordinator listens")
        return made

    def lab(self, name: str, *options: object, before: str = "") -> Running:
        """Start a lab."""
        return self.start("lab", "start", "--state", self.state(name), *options, before=before)

    def status(self) -> dict[str, Any]:
        """Return what `crossply server status` says."""
        found = self.do("server", "status", "--state", self.server, "--json")
        status: dict[str, Any] = json.loads(found.output)
        return status

    def result(self) -> dict[str, Any]:
        """Return what stands in the run's `result.json`."""
        found: dict[str, Any] = json.loads((self.server / "run" / "result.json").read_text())
        return found

    def model(self) -> Model:
        """Return the released model."""
        return Model.load(self.server / "run" / "model" / "model.safetensors")

    def model_bytes(self) -> bytes:
        """Return the bytes of the released model."""
        return (self.server / "run" / "model" / "model.safetensors").read_bytes()

    def joined(self, *labs: str, **training: Any) -> None:
        """Agree, and let labs join at a coordinator that is stopped afterwards."""
        self.agree(**training)
        coordinator = self.coordinator("--wait", "5 min")
        for lab in labs:
            self.join(lab)
        coordinator.send(signal.SIGTERM)
        assert coordinator.exit_code() == 0, coordinator.text()

    def close(self) -> None:
        """End every process that was started."""
        for running in self.running:
            with suppress(ProcessLookupError):
                running.send(signal.SIGCONT)
            running.kill()
        if self.proxy is not None:
            self.proxy.close()


def warm_context() -> ForkServerContext:
    """Return the context that forks processes from a warm server; one for each process."""
    # read once, when gRPC is imported: crossply's commands set them before that
    os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-RSA-AES256-GCM-SHA384"
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context
