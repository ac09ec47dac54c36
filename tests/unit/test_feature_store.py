"""Kept features: whole, or made again; safe for two processes; pruned without loss."""

import hashlib
import logging
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from client.feature_store import FeatureStore
from common.errors import StateError


def key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def vectors(numbers: range, width: int = 8) -> dict[str, np.ndarray]:
    return {key(n): np.full(width, n, dtype=np.float32) for n in numbers}


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    return found.keys() == expected.keys() and all(
        (found[name] == expected[name]).all() for name in expected
    )


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.npy"))


def used_long_ago(folder: Path, numbers: range) -> None:
    with sqlite3.connect(folder / "index.sqlite") as index:
        index.executemany(
            "UPDATE vectors SET used = '2020-01-01' WHERE key = ?", [(key(n),) for n in numbers]
        )
    index.close()


def test_what_is_read_is_what_was_put(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.put(vectors(range(5)))
    store.put(vectors(range(5, 9)))
    assert same(store.get([key(n) for n in range(20)]), vectors(range(9)))
    (shard,) = shards(tmp_path)
    np.testing.assert_array_equal(np.load(shard)[:, 0], np.arange(9))


def test_lengths_do_not_mix(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    both = vectors(range(2)) | vectors(range(2, 4), width=3)
    store.put(both)
    assert len(shards(tmp_path)) == 2
    assert same(store.get(list(both)), both)


def test_a_full_shard_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.feature_store.SHARD_BYTES", 200)
    store = FeatureStore(tmp_path)
    for n in range(6):
        store.put(vectors(range(n, n + 1)))
    assert len(shards(tmp_path)) == 2
    assert same(store.get([key(n) for n in range(6)]), vectors(range(6)))


@pytest.mark.parametrize("damage", ["flipped bit", "cut", "gone"])
def test_damaged_rows_are_made_again_with_a_warning(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = FeatureStore(tmp_path)
    store.put(vectors(range(4)))
    (shard,) = shards(tmp_path)
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    if damage == "gone":
        shard.unlink()
    else:
        shard.write_bytes(content if damage == "flipped bit" else content[:-5])
    lost = 1 if damage == "flipped bit" else 4
    with caplog.at_level(logging.WARNING):
        assert len(store.get([key(n) for n in range(4)])) == 4 - lost
    assert f"{lost} kept feature vectors are damaged and are made again" in caplog.text
    caplog.clear()
    store.put(vectors(range(4)))
    assert same(store.get([key(n) for n in range(4)]), vectors(range(4)))
    assert caplog.text == ""


def test_a_damaged_index_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = FeatureStore(tmp_path)
    store.put(vectors(range(4)))
    (tmp_path / "index.sqlite").write_bytes(b"not a database, but long enough to look at" * 100)
    assert store.get([key(0)]) == {}
    store.put(vectors(range(2)))
    assert same(store.get([key(0), key(1)]), vectors(range(2)))
    assert (tmp_path / "index.sqlite.damaged").exists()
    assert "index.sqlite is damaged" in caplog.text


KILLED = """
import os, sys
from pathlib import Path
import numpy as np
from client import shards
from client.feature_store import FeatureStore

def killed(descriptor):
    if os.fstat(descriptor).st_size > shards.HEADER_BYTES:
        os.kill(os.getpid(), 9)

store = FeatureStore(Path(sys.argv[1]))
store.put({"a" * 64: np.ones(8, dtype=np.float32)})
os.fsync = killed
store.put({"b" * 64: np.ones(8, dtype=np.float32)})
"""


def test_a_writer_killed_between_rows_and_index_loses_its_batch_alone(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], timeout=60, check=False)
    assert done.returncode == -9
    store = FeatureStore(tmp_path)
    store.put(vectors(range(2)))
    expected = vectors(range(2)) | {"a" * 64: np.ones(8, dtype=np.float32)}
    assert same(store.get([*expected, "b" * 64]), expected)


WRITER = """
import sys
from pathlib import Path
import numpy as np
from client.feature_store import FeatureStore
store = FeatureStore(Path(sys.argv[1]))
for n in range(int(sys.argv[2]), int(sys.argv[3])):
    store.put({f"{n:064x}": np.full(8, n, dtype=np.float32)})
"""


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(begin), str(end)])
        for begin, end in ((0, 40), (20, 60))
    ]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    found = FeatureStore(tmp_path).get([f"{n:064x}" for n in range(60)])
    assert [int(found[f"{n:064x}"][0]) for n in range(60)] == list(range(60))
    (shard,) = shards(tmp_path)
    assert len(np.load(shard)) == 60


def test_pruning_forgets_the_unused_and_gives_their_room_back(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.put(vectors(range(10)))
    used_long_ago(tmp_path, range(7))
    (tmp_path / "000099-8.npy").write_bytes(b"left by a writer that was killed")
    store.prune(timedelta(days=90))
    assert same(store.get([key(n) for n in range(10)]), vectors(range(7, 10)))
    (shard,) = shards(tmp_path)
    assert len(np.load(shard)) == 3
    store.prune(timedelta(days=90))
    assert same(store.get([key(n) for n in range(10)]), vectors(range(7, 10)))


def test_use_keeps_a_vector(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.put(vectors(range(2)))
    used_long_ago(tmp_path, range(2))
    store.get([key(0)])
    store.prune(timedelta(days=90))
    assert same(store.get([key(0), key(1)]), vectors(range(1)))


def test_a_reader_that_a_pruner_overtakes_forgets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FeatureStore(tmp_path)
    store.put(vectors(range(4)))
    used_long_ago(tmp_path, range(2))
    read = FeatureStore._read

    def overtaken(self: FeatureStore, *where: object) -> dict[str, np.ndarray]:
        monkeypatch.setattr(FeatureStore, "_read", read)
        FeatureStore(tmp_path).prune(timedelta(days=90))
        return read(self, *where)  # type: ignore[arg-type]

    monkeypatch.setattr(FeatureStore, "_read", overtaken)
    assert store.get([key(3)]) == {}
    assert same(store.get([key(3)]), vectors(range(3, 4)))


def test_a_folder_that_cannot_be_written_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("where the folder should be")
    store = FeatureStore(tmp_path / "file")
    store.put(vectors(range(2)))
    store.put(vectors(range(2)))
    assert caplog.text.count("features are not kept") == 1
    with pytest.raises(StateError, match=r"cannot be used: .*CROSSPLY_CACHE"):
        store.prune(timedelta(days=1))


def test_a_full_disk_loses_nothing_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = FeatureStore(tmp_path)
    store.put(vectors(range(2)))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        store.put(vectors(range(2, 4)))
    assert "No space left on device" in caplog.text
    assert same(FeatureStore(tmp_path).get([key(n) for n in range(4)]), vectors(range(2)))


def set_version(folder: Path, version: int) -> None:
    with closing(sqlite3.connect(folder / "index.sqlite")) as index:
        index.execute(f"PRAGMA user_version = {version}")


def test_an_index_of_an_older_version_is_begun_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = FeatureStore(tmp_path)
    store.put(vectors(range(3)))
    # as before there were versions, with a table that no code knows any more
    set_version(tmp_path, 0)
    with closing(sqlite3.connect(tmp_path / "index.sqlite")) as index:
        index.execute("ALTER TABLE vectors DROP COLUMN used")
    assert store.get([key(0)]) == {}
    assert "index.sqlite was written by an older crossply (version 0" in caplog.text
    store.put(vectors(range(1, 5)))
    assert "index.sqlite is outdated (version 0, this is 1); it is put aside" in caplog.text
    assert (tmp_path / "index.sqlite.outdated").exists()
    found = FeatureStore(tmp_path).get([key(n) for n in range(5)])
    assert same(found, vectors(range(1, 5)))
    store.prune(timedelta(days=90))
    assert not (tmp_path / "index.sqlite.outdated").exists()


def test_an_index_of_a_newer_version_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    FeatureStore(tmp_path).put(vectors(range(3)))
    set_version(tmp_path, 2)
    before = (tmp_path / "index.sqlite").read_bytes()
    store = FeatureStore(tmp_path)
    assert store.get([key(0)]) == {}
    store.put(vectors(range(5)))
    assert "features are not kept" in caplog.text
    sentence = (
        r"index\.sqlite was written by a newer crossply \(version 2, this one has 1\); "
        "update crossply, or set CROSSPLY_CACHE"
    )
    with pytest.raises(StateError, match=sentence):
        store.summary()
    with pytest.raises(StateError, match=sentence):
        store.prune(timedelta(days=1))
    assert (tmp_path / "index.sqlite").read_bytes() == before
    set_version(tmp_path, 1)
    assert same(FeatureStore(tmp_path).get([key(n) for n in range(3)]), vectors(range(3)))
