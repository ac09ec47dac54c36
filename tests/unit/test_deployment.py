"""What is in deploy/: linted, with options that exist, and the batch script run for real."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer.main

import crossply

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
UNITS = ("crossply-server.service", "crossply-lab.service")
DOCKERFILES = ("server.Dockerfile", "lab.Dockerfile")
SLURM = DEPLOY / "lab.slurm.sh"


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_dockerfiles_pass_the_linter(name: str) -> None:
    done = run(BIN / "hadolint", DEPLOY / name)
    assert done.returncode == 0, done.stdout


def test_the_batch_script_passes_the_linter() -> None:
    done = run(BIN / "shellcheck", SLURM)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_the_units(name: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    # it looks for the program that a unit starts
    installed = "/opt/crossply/.venv/bin/crossply"
    text = (DEPLOY / name).read_text()
    assert installed in text
    path = tmp_path / name
    path.write_text(text.replace(installed, "/bin/true"))
    done = run("systemd-analyze", "verify", path)
    # what it says of the machine's own units is not about ours
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "crossply" in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_an_image_copies_exists_and_what_it_needs_is_copied(name: str) -> None:
    text = (DEPLOY / name).read_text()
    copied = {
        path
        for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE)
        for path in line.split()[:-1]
    }
    assert all((ROOT / path).exists() for path in copied)
    packages = {"client", "common", "server", "simulation"}
    assert copied >= packages | {"pyproject.toml", "constraints.txt", "README.md", "crossply.py"}


def options_of(command: str) -> set[str]:
    found: Any = typer.main.get_command(crossply.app)
    for name in command.split():
        found = found.commands[name]
    return {option for parameter in found.params for option in parameter.opts}


@pytest.mark.parametrize(
    ("file", "command", "told_to_stop"),
    [
        ("crossply-server.service", "server start", "TimeoutStopSec=15s"),
        ("crossply-lab.service", "lab start", "TimeoutStopSec=15s"),
        ("server.Dockerfile", "server start", "STOPSIGNAL SIGTERM"),
        ("lab.Dockerfile", "lab start", "STOPSIGNAL SIGTERM"),
        ("lab.slurm.sh", "lab start", "--signal=B:TERM@120"),
    ],
)
def test_commands_and_variables_exist(file: str, command: str, told_to_stop: str) -> None:
    text = (DEPLOY / file).read_text()
    words = re.sub(r'[",\[\]]', " ", text)
    spelled = re.compile(command.replace(" ", r" +") + r" +--")
    line = next(line for line in words.splitlines() if spelled.search(line))
    used = set(re.findall(r"--[a-z-]+", line))
    assert used and used <= options_of(command), line
    known = {"CROSSPLY_SERVER_STATE", "CROSSPLY_LAB_STATE", "CROSSPLY_CACHE", "CROSSPLY_HOME"}
    assert set(re.findall(r"CROSSPLY_[A-Z_]+", text)) <= known
    assert told_to_stop in text


CROSSPLY = """#!/usr/bin/env bash
echo "$*" > {folder}/called
trap 'exit {on_stop}' TERM
{work}
"""


def job(folder: Path, work: str, on_stop: int = 0) -> subprocess.Popen[bytes]:
    """Start the batch script as the scheduler does, with a lab that only waits."""
    for path, text in (
        ("home/.venv/bin/crossply", CROSSPLY.format(folder=folder, work=work, on_stop=on_stop)),
        ("bin/scontrol", f'#!/usr/bin/env bash\necho "$*" > {folder}/scontrol\n'),
    ):
        file = folder / path
        file.parent.mkdir(parents=True)
        file.write_text(text)
        file.chmod(0o755)
    environment = os.environ | {
        "CROSSPLY_HOME": str(folder / "home"),
        "SLURM_JOB_ID": "4711",
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
    }
    return subprocess.Popen(["bash", str(SLURM)], env=environment, cwd=folder)


def called(folder: Path) -> bool:
    return (folder / "called").exists() and (folder / "called").read_text() != ""


@pytest.mark.parametrize(("on_stop", "queued_again"), [(0, True), (1, False)])
def test_near_its_limit_the_job_stops_the_lab_and_is_queued_again(
    tmp_path: Path, on_stop: int, queued_again: bool
) -> None:
    waits = "for _ in $(seq 200); do sleep 0.1; done; exit 3"
    process = job(tmp_path, waits, on_stop)
    end = time.monotonic() + 10
    while not called(tmp_path):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert (tmp_path / "called").read_text().strip() == "lab start --forever --log-json"
    # the trap is set an instant after the lab has been started
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == on_stop
    assert (tmp_path / "scontrol").exists() == queued_again
    if queued_again:
        assert (tmp_path / "scontrol").read_text().strip() == "requeue 4711"


@pytest.mark.parametrize("code", [0, 1])
def test_a_run_that_is_over_ends_the_job_with_its_code(tmp_path: Path, code: int) -> None:
    process = job(tmp_path, f"exit {code}")
    assert process.wait(15) == code
    assert not (tmp_path / "scontrol").exists()
