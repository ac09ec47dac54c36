"""``rounds.jsonl``: whole lines only, whatever happened to the process or the disk."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from common.errors import StateError
from common.round_log import RoundLine, RoundLog
from server.state import RoundRecord

WRITES = """
import resource, sys
from pathlib import Path
from common.errors import StateError
from common.round_log import RoundLog
from server.state import RoundRecord

log = RoundLog(Path(sys.argv[1]))
log.begin()
if sys.argv[2] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
print("begun", flush=True)
try:
    for number in range(1, 100_000):
        log.append(RoundRecord(server_round=number, train_loss=0.5, labs=("aachen",) * 9,
                               failed={}, quarantined={}).line(seconds=1.0))
except StateError as error:
    sys.exit(str(error))
"""


def record(server_round: int, loss: float = 0.25) -> RoundRecord:
    return RoundRecord(
        server_round=server_round,
        train_loss=loss,
        labs=("aachen", "bremen"),
        failed={"celle": "no reply in time"},
        quarantined={"dresden": "0.weight holds a value that is not finite"},
        out=("essen",),
    )


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every line of the file is JSON."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def known(*rounds: int) -> list[RoundLine]:
    return [record(number).line() for number in rounds]


def timed(*rounds: int) -> list[RoundLine]:
    return [record(number).line(seconds=0.5, time="2026-01-01") for number in rounds]


def written(path: Path, lines: Sequence[RoundLine]) -> RoundLog:
    log = RoundLog(path)
    log.begin()
    for line in lines:
        log.append(line)
    return log


def test_a_line_says_what_happened_in_a_round(tmp_path: Path) -> None:
    path = tmp_path / "run" / "rounds.jsonl"
    written(path, [record(3).line(fold=1, seconds=0.5, time="2026-01-01T00:00:00.000+00:00")])
    assert json.loads(path.read_text()) == {
        "fold": 1,
        "server_round": 3,
        "train_loss": 0.25,
        "labs": ["aachen", "bremen"],
        "failed": {"celle": "no reply in time"},
        "quarantined": {"dresden": "0.weight holds a value that is not finite"},
        "out": ["essen"],
        "seconds": 0.5,
        "time": "2026-01-01T00:00:00.000+00:00",
    }


def test_a_loss_that_is_no_number_is_none(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    written(path, [record(1, loss=float("nan")).line()])
    assert "NaN" not in path.read_text() and read_lines(path)[0]["train_loss"] is None


def test_a_name_of_a_lab_cannot_begin_a_line(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    made = RoundRecord(
        server_round=1, train_loss=0.5, labs=('a\n{"fold": 9}',), failed={}, quarantined={}
    )
    written(path, [made.line()])
    assert len(path.read_text().splitlines()) == 1


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_line_that_was_cut_is_written_anew(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "rounds.jsonl"
    written(path, timed(1, 2))
    path.write_bytes(path.read_bytes()[:-cut])
    log = RoundLog(path)
    log.begin(known(1, 2))
    log.append(timed(3)[0])
    lines = read_lines(path)
    assert [(line["server_round"], line["seconds"]) for line in lines] == [
        (1, 0.5), (2, None), (3, 0.5)
    ]  # fmt: skip


def test_rounds_beyond_the_state_are_computed_again_and_stand_once(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    written(path, timed(1, 2, 3, 4))
    before = path.read_bytes().splitlines(keepends=True)
    log = RoundLog(path)
    log.begin(known(1, 2))
    assert path.read_bytes() == b"".join(before[:2])
    for line in timed(3, 4):
        log.append(line)
    assert path.read_bytes() == b"".join(before)


def test_a_file_that_says_what_is_known_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    written(path, timed(1, 2))
    before = path.stat()
    RoundLog(path).begin(known(1, 2))
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff\n[]\n7\nnull\n{}\n",
        b'{"fold": null, "server_round": 1, "train_loss": 9}\n',
        b'{"fold": null, "server_round": 2}\n' * 3,
        b'{"fold": [], "server_round": {}}\n',
    ],
)
def test_whatever_the_file_holds_it_says_what_is_known_in_the_end(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "rounds.jsonl"
    path.write_bytes(content)
    RoundLog(path).begin(known(1, 2))
    assert path.read_text() == "".join(line.as_json() + "\n" for line in known(1, 2))


def test_a_new_run_begins_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    written(path, timed(1, 2))
    RoundLog(path).begin()
    assert path.read_bytes() == b""


def test_a_full_disk_leaves_whole_lines_and_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", WRITES, str(path), "full"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "rounds.jsonl cannot be written: File too large; make room" in done.stderr
    assert path.read_bytes().endswith(b"}\n")
    assert [line["server_round"] for line in read_lines(path)] == [1, 2, 3, 4]


def test_a_killed_run_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    command = [sys.executable, "-c", WRITES, str(path), "killed"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None and writer.stdout.readline() == "begun\n"
            while path.stat().st_size < 5000:
                assert writer.poll() is None
        finally:
            writer.kill()
    numbers = [json.loads(line)["server_round"] for line in path.read_text().splitlines()]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) > 10


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StateError, match=r"file/rounds.jsonl cannot be written"):
        RoundLog(tmp_path / "file" / "rounds.jsonl").append(known(1)[0])
