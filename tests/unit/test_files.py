"""Files that several processes and users share."""

import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from common.errors import StateError
from common.files import held_alone, is_held, locked, require_owner, write_atomically


def test_a_folder_of_ones_own_may_be_used(tmp_path: Path) -> None:
    require_owner(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize(("user", "named"), [(65534, "nobody"), (54321, "54321")])
def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, user: int, named: str) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    os.chown(folder, user, -1)
    with pytest.raises(StateError, match=f"belongs to {named}; run this as that user"):
        require_owner(folder)


def test_what_cannot_be_written_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_atomically(path, "old")

    class Broken(str):
        def encode(self, *arguments: object, **options: object) -> bytes:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_atomically(path, Broken("new"))
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("state", "old")]


def test_who_only_looks_at_a_lock_keeps_nobody_out_who_waits_a_moment(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_held(path)
    with locked(path):
        assert is_held(path)
        started = time.monotonic()
        refused = pytest.raises(StateError, match="it is taken")
        with refused, held_alone(path, "it is taken", patience=0.2):
            pytest.fail("two hold it")
        assert 0.2 <= time.monotonic() - started < 5
    looking = os.open(path, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    # another who looks is not taken for who holds it
    assert not is_held(path)
    threading.Timer(0.1, os.close, (looking,)).start()
    with held_alone(path, "it is taken", patience=5.0):
        assert is_held(path)
    assert not is_held(path)
