"""The command `crossply lab check`: what it prints, and its exit status."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from client.settings import GUIDE
from common.errors import ConfigurationError

# typer imports names that click has deprecated
Lab = Any


@pytest.fixture
def lab(lab: Lab) -> Lab:
    """The good lab folder, under a backbone whose weights are at hand; it may tell its errors."""
    lab.federation["backbone"] = {"name": "efficientnet_lite0"}
    lab.federation["privacy"]["min_specimens"] = 4
    lab.write()
    return lab


def run(*arguments: str, columns: int = 100) -> tuple[int, str]:
    from typer.testing import CliRunner

    from client.cli import app

    result = CliRunner(env={"COLUMNS": str(columns)}).invoke(app, ["check", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_a_good_folder(lab: Lab) -> None:
    code, output = run(str(lab.path))
    assert code == 0
    assert output.rstrip().endswith("lab can join test.")
    assert "target strength: 24 values, 503 to 572 MPa, median 537.5" in output


def test_a_bad_folder(lab: Lab) -> None:
    lab.set_cell(3, "strength", "3-May")
    lab.set_cell(4, "strength", "0")
    lab.write()
    code, output = run(str(lab.path))
    assert code == 1
    assert output.rstrip().endswith("lab cannot join test yet: 1 reason to stop.")
    assert max(len(line) for line in output.splitlines()) <= 100
    words = " ".join(output.split())
    for word in ("level file row column found what to do", "stop tests.csv 3 strength", "3-May"):
        assert word in words


def test_the_key_to_edit_is_shown_whole_in_eighty_columns(lab: Lab) -> None:
    measured = lab.settings["targets"].pop("strength")
    lab.federation["targets"]["tensile_strength_at_room_temperature"] = lab.federation[
        "targets"
    ].pop("strength")
    lab.settings["targets"]["tensile_strength_at_room_temperature"] = measured | {"column": "Rm"}
    lab.write()
    code, output = run(str(lab.path), columns=80)
    assert code == 1
    lines = output.splitlines()
    assert max(map(len, lines)) <= 80
    column = next(line for line in lines if line.startswith("level")).index("what to do")
    shown = "".join(line[column:].strip() for line in lines)
    assert "targets.tensile_strength_at_room_temperature.column" in shown


def test_something_to_look_at(lab: Lab) -> None:
    lab.set_cell(4, "strength", "0")
    lab.write()
    code, output = run(str(lab.path))
    assert code == 0
    assert output.rstrip().endswith("lab can join test; 1 finding to look at.")


def test_json(lab: Lab) -> None:
    lab.set_cell(3, "strength", "3-May")
    lab.write()
    code, output = run(str(lab.path), "--json")
    report = json.loads(output)
    assert code == 1
    assert report["ok"] is False
    stop = next(finding for finding in report["findings"] if finding["level"] == "stop")
    assert (stop["file"], stop["row"], stop["column"]) == ("tests.csv", 3, "strength")


def test_markup_in_a_cell_is_shown_as_it_is(lab: Lab) -> None:
    lab.set_cell(3, "strength", "[bold]7[/bold]")
    lab.write()
    assert "[bold]7[/bold]" in run(str(lab.path))[1]


def test_where_the_federation_file_is_looked_for(lab: Lab) -> None:
    (lab.path / "federation.toml").rename(lab.path.parent / "federation.toml")
    assert run(str(lab.path))[0] == 0
    (lab.path.parent / "federation.toml").rename(lab.path / "agreement.toml")
    assert run(str(lab.path), "--federation", str(lab.path / "agreement.toml"))[0] == 0
    with pytest.raises(ConfigurationError, match="name it with --federation FILE"):
        run(str(lab.path))


@pytest.mark.usefixtures("in_bounded_time")
def test_what_is_no_lab_folder_says_what_to_name(lab: Lab) -> None:
    with pytest.raises(ConfigurationError, match=r"gone does not exist; name the lab's folder"):
        run(str(lab.path.parent / "gone"))
    with pytest.raises(ConfigurationError) as named_file:
        run(str(lab.path / "lab.toml"))
    assert f"lab.toml is a file; name the lab's folder, {lab.path}, and" in str(named_file.value)
    (lab.path / "lab.toml").unlink()
    agreement = ("--federation", str(lab.path / "federation.toml"))
    for options in ((), agreement):
        with pytest.raises(ConfigurationError, match=r"holds no lab\.toml.*; docs/lab-file\.md"):
            run(str(lab.path), *options)
    assert (Path(__file__).parents[2] / GUIDE).is_file()


@pytest.mark.parametrize("name", ["federation.toml", "lab.toml"])
def test_a_named_pipe_in_place_of_a_toml_file(lab: Lab, name: str) -> None:
    (lab.path / name).rename(lab.path.parent / name)
    os.mkfifo(lab.path / name)
    with pytest.raises(ConfigurationError, match=f"{name}: not a regular file"):
        run(str(lab.path))


def test_help_does_not_import_what_is_slow() -> None:
    code = (
        "import sys, client.cli; slow = {'cv2', 'numpy', 'pint', 'torch', 'pydantic', 'PIL'};"
        "print(slow & set(sys.modules))"
    )
    path = str(Path(__file__).parents[2])
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert result.stdout.strip() == "set()"


def test_a_lab_whose_weights_are_missing_is_told(lab: Lab, tmp_path: Path) -> None:
    lab.federation["backbone"] = {"name": "resnet18", "weights": "gone.pth", "sha256": "0" * 64}
    lab.write()
    code, output = run(str(lab.path))
    assert code == 1
    words = " ".join(output.split())
    assert "stop backbone" in words and "gone.pth" in words


def test_features_ahead_of_time_are_kept_and_shown(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from client.cli import app

    monkeypatch.setenv("CROSSPLY_CACHE", str(tmp_path / "kept"))
    lab.federation["descriptors"] = {"names": ["grey_entropy", "fibre_diameter_um"]}
    lab.write()
    runner = CliRunner(env={"COLUMNS": "100"})
    made = runner.invoke(app, ["features", str(lab.path)])
    words = " ".join(made.output.split())
    assert made.exit_code == 0, made.output
    assert "24 specimens have their 2562 features" in words
    assert "grey_entropy" in words and "fibre_diameter_um" in words and " px " in words
    kept = runner.invoke(app, ["cache"]).output
    assert ": 48 vectors, " in " ".join(kept.split())
    pruned = runner.invoke(app, ["cache", "--prune", "--unused", "1 day"]).output
    told = str(runner.invoke(app, ["cache", "--unused", "3"]).exception)
    assert told == "--unused: '3' is not a duration; write for example --unused \"90 days\""
    assert "0 removed" in pruned
    with closing(sqlite3.connect(tmp_path / "kept" / "index.sqlite")) as index, index:
        some = "SELECT key FROM vectors LIMIT 20"
        index.execute(f"UPDATE vectors SET used = '2020-01-01' WHERE key IN ({some})")
    pruned = runner.invoke(app, ["cache", "--prune", "--unused", "1 day"]).output
    assert "20 removed" in pruned and ": 28 vectors, " in " ".join(pruned.split())
