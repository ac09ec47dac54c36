"""The command `crossply lab check`: what it prints, and its exit status."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigurationError

# typer imports names that click has deprecated
Lab = Any


def run(*arguments: str) -> tuple[int, str]:
    from typer.testing import CliRunner

    from client.cli import app

    result = CliRunner(env={"COLUMNS": "100"}).invoke(app, ["check", *arguments])
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
