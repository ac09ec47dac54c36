"""Workers: what dies, hangs or eats memory in one costs one image a sentence, and no more."""

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from client.findings import RefusedError
from client.preparation import PrepareTask
from client.reading.checksums import sha256_of
from client.settings import Data
from client.workers import Worker
from common.errors import WorkerError
from common.federation import Imaging

DATA = Data(table="t.csv", images=".", specimen="id", image="{id}.png")


HOSTILE = """
import os, signal, socket, struct, sys, time
from dataclasses import dataclass
import numpy as np

@dataclass(frozen=True)
class Crash:
    def run(self): os.kill(os.getpid(), signal.SIGSEGV)

@dataclass(frozen=True)
class Hang:
    def run(self): time.sleep(600)

@dataclass(frozen=True)
class Trickle:
    def run(self):
        # bytes of an answer, for ever, each long before a receive of its own would give up
        with socket.socket(fileno=os.dup(int(sys.argv[1]))) as link:
            link.sendall(struct.pack("!QQ", 1, 2**20))
            while True:
                link.sendall(b"x")
                time.sleep(0.05)

@dataclass(frozen=True)
class Bomb:
    def run(self): return len(np.zeros(2**34, dtype=np.uint8))

@dataclass(frozen=True)
class Odd:
    def run(self): raise ZeroDivisionError("of one image")

@dataclass(frozen=True)
class Pid:
    def run(self): return os.getpid()
"""


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Tasks in a module that the worker's process finds too."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "hostile_tasks.py").write_text(HOSTILE)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    yield importlib.import_module("hostile_tasks")
    del sys.modules["hostile_tasks"]


@pytest.fixture
def worker(tasks: Any) -> Iterator[Worker]:
    made = Worker()
    yield made
    made.end()


def works(worker: Worker, folder: Path) -> bool:
    cv2.imwrite(str(folder / "a.png"), np.full((40, 50), 128, dtype=np.uint8))
    task = PrepareTask(
        path=folder / "a.png",
        sha256=sha256_of(folder / "a.png"),
        data=DATA,
        imaging=Imaging(scale="pixels", tile_px=32),
    )
    cut = worker.run(task).tiles
    return cut.shape == (4, 32, 32) and bool((cut == np.float32(128 / 255)).all())


def test_a_crash_costs_one_image(worker: Worker, tasks: Any, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"makes the decoder crash \(SIGSEGV\)"):
        worker.run(tasks.Crash())
    assert works(worker, tmp_path)


def test_a_hang_ends_in_bounded_time(
    worker: Worker, tasks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = worker.run(tasks.Pid())
    with monkeypatch.context() as patched:
        patched.setattr("client.workers.TIMEOUT_S", 0.5)
        with pytest.raises(RefusedError, match="to read; crop it"):
            worker.run(tasks.Hang())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert works(worker, tmp_path)


@pytest.mark.usefixtures("in_bounded_time")
def test_an_answer_that_trickles_in_ends_in_bounded_time(
    worker: Worker, tasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.run(tasks.Pid())
    monkeypatch.setattr("client.workers.TIMEOUT_S", 0.5)
    with pytest.raises(RefusedError, match="to read; crop it"):
        worker.run(tasks.Trickle())


def test_a_bomb_meets_a_limit_of_memory(worker: Worker, tasks: Any, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="needs more than 8 GiB of memory"):
        worker.run(tasks.Bomb())
    assert works(worker, tmp_path)


def test_whatever_is_odd_about_an_image_is_a_finding(
    worker: Worker, tasks: Any, tmp_path: Path
) -> None:
    with pytest.raises(RefusedError, match="ZeroDivisionError: of one image"):
        worker.run(tasks.Odd())
    assert works(worker, tmp_path)


def test_a_worker_that_was_killed_while_idle_is_started_again(
    worker: Worker, tasks: Any, tmp_path: Path
) -> None:
    os.kill(worker.run(tasks.Pid()), signal.SIGKILL)
    time.sleep(0.2)
    assert works(worker, tmp_path)


def test_a_process_that_cannot_start_is_an_error_by_name(
    worker: Worker, tasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(WorkerError, match="cannot be started"):
        worker.run(tasks.Pid())


def test_a_refusal_keeps_what_was_found_and_what_to_do(
    worker: Worker, tasks: Any, tmp_path: Path
) -> None:
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    task = PrepareTask(
        path=tmp_path / "cut.png",
        sha256="",
        data=DATA,
        imaging=Imaging(scale="fit"),
    )
    with pytest.raises(RefusedError) as caught:
        worker.run(task)
    assert caught.value.action == "export the image again"


def test_code_in_the_working_folder_is_not_run(
    worker: Worker, tasks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "cv2.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path / "lab")
    assert works(worker, tmp_path)


def test_an_answer_is_never_taken_for_that_to_the_next_task(
    worker: Worker, tasks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = worker.run(tasks.Pid())

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("client.frames.receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            worker.run(tasks.Pid())
    assert worker.run(tasks.Pid()) != pid


ORPHAN = """
import sys
from client.workers import Worker
from hostile_tasks import Hang, Pid
worker = Worker()
print(worker.run(Pid()), flush=True)
worker.run(Hang())
"""


def test_a_busy_worker_ends_with_its_lab(tasks: Any, tmp_path: Path) -> None:
    path = os.pathsep.join((str(tmp_path / "modules"), str(Path.cwd())))
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    ) as lab:
        assert lab.stdout is not None
        pid = int(lab.stdout.readline())
        lab.kill()
        deadline = time.monotonic() + 20
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()


def test_an_image_that_changes_under_way_is_refused(worker: Worker, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((40, 50), 128, dtype=np.uint8))
    task = PrepareTask(
        path=tmp_path / "a.png",
        sha256="0" * 64,
        data=DATA,
        imaging=Imaging(scale="fit"),
    )
    with pytest.raises(RefusedError, match="was changed while it was read"):
        worker.run(task)
