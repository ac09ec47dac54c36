"""Digests of files are remembered only while a file is plainly the same."""

import hashlib
import os
import time
from pathlib import Path

import pytest

import client.file_digests
from client.file_digests import FileDigests, forget_missing


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(b"first")
    # as if the file had lain there for a while
    monkeypatch.setattr(client.file_digests, "SETTLED_NS", -60_000_000_000)
    return path


def never(path: Path) -> str:
    raise AssertionError(f"{path} was read again")


def test_a_file_is_read_once(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memo = tmp_path / "files.sqlite"
    first = FileDigests(memo)
    assert first.of(file) == digest(b"first")
    first.save()
    monkeypatch.setattr(client.file_digests, "sha256_of", never)
    assert FileDigests(memo).of(file) == digest(b"first")


@pytest.mark.parametrize("keeps_its_time", [False, True])
def test_a_changed_file_is_read_again(file: Path, tmp_path: Path, keeps_its_time: bool) -> None:
    memo = tmp_path / "files.sqlite"
    digests = FileDigests(memo)
    digests.of(file)
    digests.save()
    before = file.stat()
    time.sleep(0.02)
    file.write_bytes(b"other")
    if keeps_its_time:
        # what a program sets back; the file system's own record of the change stays
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert FileDigests(memo).of(file) == digest(b"other")


def test_a_file_of_this_very_moment_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"first")
    digests = FileDigests(tmp_path / "files.sqlite")
    digests.of(path)
    digests.save()
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return digest(path.read_bytes())

    monkeypatch.setattr(client.file_digests, "sha256_of", counted)
    FileDigests(tmp_path / "files.sqlite").of(path)
    assert read == [path]


def test_a_name_that_is_no_text_is_hashed_and_not_remembered(file: Path, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    odd.write_bytes(b"odd")
    digests = FileDigests(tmp_path / "files.sqlite")
    assert (digests.of(odd), digests.of(file)) == (digest(b"odd"), digest(b"first"))
    digests.save()
    assert FileDigests(tmp_path / "files.sqlite").of(odd) == digest(b"odd")


def test_a_damaged_memo_costs_time_alone(file: Path, tmp_path: Path) -> None:
    memo = tmp_path / "files.sqlite"
    memo.write_bytes(b"no database" * 1000)
    digests = FileDigests(memo)
    assert digests.of(file) == digest(b"first")
    digests.save()
    assert FileDigests(memo)._known


def test_files_that_are_gone_are_forgotten(file: Path, tmp_path: Path) -> None:
    memo = tmp_path / "files.sqlite"
    digests = FileDigests(memo)
    digests.of(file)
    digests.save()
    file.unlink()
    forget_missing(memo)
    assert not FileDigests(memo)._known
