"""The log of what left: unbroken, or the line where it is not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from client.sent_log import SentLog, verified
from common.errors import StateError
from common.link_pb2 import Reply


@pytest.fixture
def path(tmp_path: Path) -> Path:
    log = SentLog(tmp_path / "sent.jsonl")
    for number in range(4):
        log.append("train", Reply(message_id=str(number)), str(number))
    return tmp_path / "sent.jsonl"


def altered(lines: list[str]) -> list[str]:
    entry = json.loads(lines[1])
    return [lines[0], json.dumps(entry | {"bytes": 1}), *lines[2:]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (altered, "line 2: the entry has been altered"),
        (lambda lines: [lines[0], *lines[2:]], "line 2: an entry before it was removed or moved"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "line 1: an entry before it was removed"),
        (lambda lines: ["{}", *lines[1:]], "line 1: it is no entry"),
        (lambda lines: ["rubbish", *lines[1:]], "line 1: it is no entry"),
    ],
)
def test_a_line_that_was_touched_is_named(
    path: Path, change: Callable[[list[str]], list[str]], words: str
) -> None:
    assert len(verified(path)) == 4
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(StateError, match=words):
        verified(path)
    with pytest.raises(StateError, match=words):
        SentLog(path)


def test_a_byte_that_is_no_text_is_found_by_its_line(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"train")] |= 0x80
    path.write_bytes(content)
    with pytest.raises(StateError, match=r"line \d: the entry has been altered"):
        verified(path)


def test_a_line_that_a_crash_cut_is_put_aside_and_the_chain_goes_on(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"seq": 5, "ti')
    log = SentLog(path)
    assert "put aside" in caplog.text
    assert path.read_bytes() == whole
    assert path.with_suffix(".cut").read_bytes() == b'{"seq": 5, "ti'
    log.append("evaluate", Reply(message_id="5", error="policy"), "5")
    assert [entry["answer"] for entry in verified(path)] == ["content"] * 4 + ["policy"]
