"""`crossply lab predict`: features as in training, and a sentence for what it cannot use."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

import crossply
from client.app import client_app
from client.opening import open_lab
from client.own_version import load_own_version, own_path
from client.uncertainty import spread_in_units
from common.errors import ConfigurationError, CrossplyError, StateError
from common.federation import load_federation
from common.release import load_release
from server.rounds import run_federation
from simulation.grid import InProcessGrid

RUNNER = CliRunner()


def released(lab: Any, home: Path) -> Path:
    """Run a federation of one lab, which keeps the model."""
    lab.federation["backbone"] = {"name": "efficientnet_lite0"}
    lab.federation["imaging"] = {"scale": "physical", "um_per_px": 1.0, "tile_px": 32}
    lab.federation["covariates"] = {"cure": {"unit": "degC", "range": [20, 250]}}
    lab.federation["training"] = {"rounds": 1}
    lab.federation["privacy"] = {"min_specimens": 4}
    lab.settings["data"]["um_per_px"] = 1.0
    lab.settings["covariates"] = {"cure": {"column": "cure", "unit": "degC"}}
    lab.add_column("cure", ["180"] * 24)
    lab.write()
    home.mkdir()
    made = replace(open_lab(lab.path, load_federation(lab.path)), model_path=home / "model")
    app = client_app(lambda context: made)
    run_federation(InProcessGrid(app, {made.name: {}}), made.federation)
    return home / "model"


def predict(*arguments: object, failing: bool = False) -> Result:
    given = ["lab", "predict", *map(str, arguments)]
    result = RUNNER.invoke(crossply.app, given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == int(failing), result.output
    return result


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CROSSPLY_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("cached")
def test_images_are_read_as_in_training_and_what_cannot_be_used_stops_no_other(
    lab: Any, tmp_path: Path
) -> None:
    model = released(lab, tmp_path / "home")
    found, given = load_release(model), ("--um-per-px", "1.0", "--covariate", "cure=453.15 K")
    opened = open_lab(lab.path, found.federation)
    own = load_own_version(model, found)
    assert own is not None
    head, standardiser = found.model.head, found.model.standardiser

    told = json.loads(predict(model, lab.images, *given, "--json").stdout)
    assert told["intervals_of"] == "this lab"
    by_name = {
        (Path(record["specimen"]).stem, record["target"]): record for record in told["predictions"]
    }
    assert len(by_name) == 48
    for specimens in (opened.training, opened.held_out):
        expected = own.predict(specimens.features)
        spread = spread_in_units(head, standardiser, specimens.features, found.federation)
        lower = own.intervals.around(expected, spread)[0]
        for row, specimen in enumerate(specimens.ids):
            for index, target in enumerate(("strength", "modulus")):
                record = by_name[specimen, target]
                # the covariate was converted from kelvin
                assert record["value"] == pytest.approx(expected[row, index], rel=1e-5)
                if np.isfinite(lower[0, row, index]):
                    ends = record["intervals"]["80"]
                    assert ends[0] == pytest.approx(lower[0, row, index], rel=1e-5)

    shutil.copy(lab.images / "S01.png", tmp_path / "=cmd.png")
    (tmp_path / "cut.png").write_bytes((lab.images / "S02.png").read_bytes()[:300])
    paths = [tmp_path / name for name in ("cut.png", "=cmd.png", "missing.png")]
    table = tmp_path / "out.csv"
    result = predict(model, *paths, *given, "--csv", table, failing=True)
    assert "cut.png: is a truncated or damaged PNG file" in result.stderr
    assert "missing.png: no such file" in result.stderr
    assert result.stdout.count("strength") == 1 and " MPa" in result.stdout
    # the others are refused, and this one is still named
    assert result.stdout.startswith(f"{paths[1]}: strength ")
    assert table.read_text().splitlines()[1].split(",")[1:3] == ["strength", "MPa"]

    two = [lab.images / name for name in ("S01.png", "S02.png")]
    assert predict(model, *two, *given, "--one-specimen").stdout.count("MPa") == 1
    refused = predict(model, paths[0], *two, *given, "--one-specimen", failing=True)
    assert refused.stdout == ""

    own_path(model).unlink()
    shared = json.loads(predict(model, two[0], *given, "--json").stdout)
    assert shared["intervals_of"] == "all labs"

    # with the lab's own settings for reading, no scale is to be told
    again = predict(model, two[0], "--lab", lab.path, "--covariate", "cure=180 degC", "--json")
    assert json.loads(again.stdout)["predictions"][0]["value"] == pytest.approx(
        by_name["S01", "strength"]["value"], rel=1e-5
    )

    def complaint(kind: type[CrossplyError], *arguments: object) -> str:
        with pytest.raises(kind) as raised:
            predict(model, two[0], *arguments)
        return str(raised.value)

    wrong = ConfigurationError
    assert "needs cure, from 20 to 250 °C" in complaint(wrong, "--um-per-px", 1)
    scaled = ("--um-per-px", "1", "--covariate")
    assert "no number with a unit" in complaint(wrong, *scaled, "cure=warm")
    assert "cannot be converted" in complaint(wrong, *scaled, "cure=180 MPa")
    assert "outside of what the labs agreed on" in complaint(wrong, *scaled, "cure=400 degC")
    assert "the model's covariates are: cure" in complaint(wrong, *scaled, "cur=180 degC")
    assert "how many µm a pixel has" in complaint(wrong, "--covariate", "cure=180 degC")
    assert "number above zero" in complaint(wrong, "--um-per-px", "-1")
    content = bytearray((model / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (model / "model.safetensors").write_bytes(content)
    assert "differs from its checksum" in complaint(StateError, *given)


@pytest.mark.parametrize("command", ["predict", "explain", "export"])
def test_what_is_no_released_model_says_what_is_one(tmp_path: Path, command: str) -> None:
    def complaint(folder: Path) -> str:
        result = RUNNER.invoke(crossply.app, ["lab", command, str(folder), "x"])
        assert isinstance(result.exception, CrossplyError)
        return str(result.exception)

    assert "gone does not exist; name the folder of a released model" in complaint(
        tmp_path / "gone"
    )
    run = tmp_path / "run"
    run.mkdir()
    (run / "predictions.csv").touch()
    assert "run is the run of a simulation, which compares and leaves no model" in complaint(run)
    state = tmp_path / "state"
    (state / "model").mkdir(parents=True)
    (state / "model" / "SHA256SUMS").touch()
    assert f"and {state / 'model'} is one; name that" in complaint(state)
