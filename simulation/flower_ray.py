"""Virtual labs on Flower's own Ray engine: the same two apps, in a process for each core.

Flower runs the coordinator in a thread of this process and the ClientApps in Ray's. Labs' specimens
lie in files that Ray's processes open (`simulation.lab_files`): a message carries none. Where
``RAY_ADDRESS`` names a cluster that runs already, it is used, and the files must lie on a file
system that its machines share: ``TMPDIR`` says where. Otherwise Ray is started here, on loopback,
and ended.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as NotDone
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from client.app import client_app
from client.lab import Lab
from common.cores import usable_cores
from common.errors import EngineError
from common.threads import one_thread
from simulation.lab_files import open_labs, write_labs
from simulation.watched_grid import WatchedGrid

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp

T = TypeVar("T")

UP_WITHIN_S = 180.0
"""From the start of Ray to the first answer of a lab; a machine under load takes a minute."""

ENDED_WITHIN_S = 60.0

STORE_BYTES = 256 * 2**20
"""Of shared memory for messages on their way."""


def on_ray(labs: Mapping[str, Lab], work: Callable[[Grid], T]) -> T:
    """Give `work` a grid of labs on Flower's Ray engine, and return what it returns.

    Parameters
    ----------
    labs : mapping of str to Lab
        By name.
    work : callable
        Runs in a thread of its own.

    Raises
    ------
    EngineError
        If it does not come up in `UP_WITHIN_S`, or ends before the work does.
    """
    with tempfile.TemporaryDirectory(prefix="crossply-") as name, _quiet():
        folder = Path(name)
        write_labs(list(labs.values()), folder)
        client = client_app(partial(_open_lab, folder))
        return _Engine(work=work, num_labs=len(labs)).run(client)


def _open_lab(folder: Path, context: Context) -> Lab:
    """Return the lab of a virtual node, in one of Ray's processes."""
    return open_labs(folder)[int(str(context.node_config["partition-id"]))]


@dataclass(kw_only=True)
class _Engine(Generic[T]):
    """One run of `work`, and what watches over it.

    Attributes
    ----------
    came_up : Event
        Set when the first lab has answered.
    gone : Event
        Set when Flower's engine has ended, or is to.
    outcome : Future
        What `work` returned or raised, or that the engine is gone.
    """

    work: Callable[[Grid], T]
    num_labs: int
    came_up: Event = field(default_factory=Event)
    gone: Event = field(default_factory=Event)
    outcome: Future[T] = field(default_factory=Future)

    def run(self, client: ClientApp) -> T:
        """Run it, and end every process that was started."""
        runner = Thread(target=self._flower, args=(client,), name="flower-ray", daemon=True)
        runner.start()
        try:
            if not self.came_up.wait(UP_WITHIN_S) and not self.outcome.done():
                raise EngineError(
                    f"Flower's Ray engine has not come up in {UP_WITHIN_S:.0f} s; see that Ray "
                    "starts on this machine, or choose --engine batched"
                )
            return self._wait()
        finally:
            self.gone.set()
            runner.join(ENDED_WITHIN_S)
            if runner.is_alive():
                _end_ray()

    def _wait(self) -> T:
        while True:
            # in short turns: an interrupt is heard between them
            with suppress(NotDone):
                return self.outcome.result(timeout=0.5)

    def _flower(self, client: ClientApp) -> None:
        from flwr.simulation import run_simulation

        server = ServerApp()
        server.main()(self._coordinate)
        try:
            _start_ray()
            run_simulation(
                server_app=server,
                client_app=client,
                num_supernodes=self.num_labs,
                backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
            )
            self._fails("ended before the run did")
        except BaseException as error:
            self._fails(f"failed ({type(error).__name__}: {_first_line(error)})")
        finally:
            self.came_up.set()
            self.gone.set()
            _end_ray()

    def _coordinate(self, grid: Grid, context: Context) -> None:
        watched = WatchedGrid(grid, self.num_labs, self.came_up, self.gone)
        try:
            with one_thread():
                found = self.work(watched)
        except BaseException as error:
            with suppress(InvalidStateError):
                self.outcome.set_exception(error)
        else:
            with suppress(InvalidStateError):
                self.outcome.set_result(found)

    def _fails(self, how: str) -> None:
        # what the coordinator came to before stands
        with suppress(InvalidStateError):
            self.outcome.set_exception(
                EngineError(f"Flower's Ray engine {how}; choose --engine batched, or try again")
            )


def _start_ray() -> None:
    """Start Ray on loopback, or connect to the cluster that the environment names."""
    import ray

    # of Flower's own start: its processes find what this one imports
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    options: dict[str, Any] = {
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        "runtime_env": {"env_vars": {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}},
    }
    if not os.environ.get("RAY_ADDRESS"):
        options |= {
            "address": "local",
            "num_cpus": usable_cores(),
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
            "_node_ip_address": "127.0.0.1",
        }
    ray.init(**options)


def _end_ray() -> None:
    import ray

    ray.shutdown()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Flower and Ray from reporting their use, and from telling of every step."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    log = logging.getLogger("flwr")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
