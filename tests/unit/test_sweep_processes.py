"""A process for each trial: what it costs when one dies, hangs or raises."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from common.errors import LabDataError
from simulation.sweep.processes import Failure, Running, take_finished


@dataclass(frozen=True)
class Ends:
    """A task that ends in one way or another."""

    how: str

    def run(self) -> list[np.ndarray]:
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.how == "exits":
            os._exit(3)
        if self.how == "hangs":
            time.sleep(300)
        if self.how == "refuses":
            raise LabDataError("these settings cannot be")
        if self.how == "raises":
            raise ValueError("a bug")
        # more than a pipe takes at once
        return [np.arange(100_000.0)]


def failure_of(how: str, seconds: float = 300.0) -> Failure:
    running = Running(Ends(how), seconds)
    take_finished([running])
    assert running.answer is not None
    assert isinstance(running.answer.found, Failure)
    return running.answer.found


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("killed", "its process was killed (this computer may be out of memory)"),
        ("crashes", "its process crashed (SIGSEGV)"),
        ("exits", "its process ended with code 3"),
        ("raises", "ValueError: a bug"),
    ],
)
def test_what_befalls_a_process_tells_nothing_of_the_settings(how: str, why: str) -> None:
    # what ended from outside is worth another try
    found = Failure(why=why, is_lasting=False, was_killed=how != "raises")
    assert failure_of(how) == found


def test_what_settings_bring_about_lasts() -> None:
    assert failure_of("refuses") == Failure(why="these settings cannot be", is_lasting=True)


def test_one_that_hangs_is_ended() -> None:
    assert failure_of("hangs", seconds=0.5) == Failure(
        why="took longer than 0.5 s", is_lasting=False
    )


def test_answers_wait_for_whoever_asks() -> None:
    both = [Running(Ends("well"), 300.0) for _ in range(2)]
    while any(running.answer is None for running in both):
        take_finished(both)
    for running in both:
        assert running.answer is not None and not isinstance(running.answer.found, Failure)
        assert running.answer.found[0].shape == (100_000,)


INTERRUPTED = """
import signal
signal.signal(signal.SIGINT, lambda *_: None)
from simulation.sweep import processes
from tests.unit.test_sweep_processes import Ends
processes.PRELOADED[:] = ["slow_import"]
running = processes.Running(Ends("well"), 60.0)
processes.take_finished([running])
print(len(running.answer.found))
"""


def test_an_interrupt_while_processes_are_made_ready_is_no_traceback(tmp_path: Path) -> None:
    mark = tmp_path / "importing"
    (tmp_path / "slow_import.py").write_text(
        f"import pathlib, time; pathlib.Path({str(mark)!r}).touch(); time.sleep(1)"
    )
    root = Path(__file__).parents[2]
    sweep = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{root}:{tmp_path}"},
        cwd=root,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 60
        while not mark.exists() and time.monotonic() < end:
            time.sleep(0.02)
        # as the terminal does: to all processes of the command
        os.killpg(sweep.pid, signal.SIGINT)
        out, err = sweep.communicate(timeout=60)
    finally:
        sweep.kill()
    assert (out, err, sweep.returncode) == ("1\n", "", 0)
