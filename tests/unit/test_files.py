"""Files that several processes and users share."""

import os
from pathlib import Path

import pytest

from common.errors import StateError
from common.files import require_owner, write_atomically


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
