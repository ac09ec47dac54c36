"""Folders of runs: each run has its own, and one that wrote nothing leaves none."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common.errors import ConfigurationError
from simulation.run_folder import new_run_folder, run_folder


def test_runs_that_begin_in_one_second_do_not_share_a_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new_run_folder(tmp_path / "runs", "cfrp | x"), range(40)))
    assert len(set(made)) == 40 and all(path.is_dir() for path in made)
    assert all(path.name.startswith("cfrp-x-20") for path in made)


def test_no_folder_can_be_made_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(ConfigurationError, match="cannot be written to: File exists"):
        new_run_folder(tmp_path / "runs", "x")


def test_a_run_that_fails_before_it_writes_leaves_no_folder_of_its_own(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with pytest.raises(ConfigurationError, match="refused"), run_folder(None, runs, "x") as claimed:
        assert claimed.parent == runs
        raise ConfigurationError("refused")
    assert list(runs.iterdir()) == []
    # what was written is kept, and so is a folder that was there
    with pytest.raises(ConfigurationError, match="late"), run_folder(None, runs, "x") as claimed:
        (claimed / "rounds.jsonl").touch()
        raise ConfigurationError("late")
    assert (claimed / "rounds.jsonl").exists()
    with pytest.raises(ConfigurationError, match="late"), run_folder(tmp_path / "own", runs, "x"):
        raise ConfigurationError("late")
    assert not (tmp_path / "own").exists()
    (tmp_path / "own").mkdir()
    with pytest.raises(ConfigurationError, match="late"), run_folder(tmp_path / "own", runs, "x"):
        raise ConfigurationError("late")
    assert (tmp_path / "own").is_dir()
