"""``crossply sweep`` as a person runs it, in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from common.federation import load_federation

BOUND_S = 300
GRID = {
    "sampler": "grid",
    "inner_folds": 2,
    "search": {
        "training.learning_rate": {"choices": [1e-4, 3e-2]},
        "descriptors.names": {"choices": [[], ["grey_entropy"]]},
    },
}


@pytest.fixture
def labs(make_lab: Callable[[str], Any], tmp_path: Path) -> Path:
    """A folder of two labs whose strength follows the grey level."""
    for number, name in enumerate(("aachen", "bremen")):
        lab = make_lab(f"labs/{name}")
        generator = np.random.default_rng(number)
        for row in lab.rows:
            level = generator.uniform(40, 210)
            noise = generator.normal(0, 12, (48, 64))
            lab.write_image(f"{row[0]}.png", np.clip(level + noise, 1, 254).astype(np.uint8))
            row[1] = f"{300 + 5 * level:.6g}"
        lab.write()
        (lab.path / "federation.toml").unlink()
    federation = lab.federation | {
        "backbone": {"name": "efficientnet_lite0"},
        "training": {"rounds": 6, "learning_rate": 1e-4},
        "privacy": {"min_specimens": 20},
    }
    (tmp_path / "labs" / "federation.toml").write_text(tomli_w.dumps(federation))
    return tmp_path / "labs"


@pytest.fixture
def begin(tmp_path: Path, feature_cache: Path) -> Callable[..., subprocess.Popen[str]]:
    """Begin the command with a sweep file."""
    environment = os.environ | {"CROSSPLY_CACHE": str(feature_cache), "COLUMNS": "100"}

    def run(labs: Path, sweep: dict[str, Any], *options: str) -> subprocess.Popen[str]:
        (tmp_path / "sweep.toml").write_text(tomli_w.dumps(sweep))
        return subprocess.Popen(
            [sys.executable, "-m", "crossply", "sweep", labs, "sweep.toml", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=tmp_path,
        )

    return run


def test_a_grid_over_training_and_features(
    begin: Callable[..., subprocess.Popen[str]], labs: Path, tmp_path: Path
) -> None:
    process = begin(labs, GRID, "--out", "run")
    out, err = process.communicate(timeout=BOUND_S)
    assert process.returncode == 0, err
    for words in (
        "the best of 4 trials, on inner folds",
        "learning_rate 0.03",
        "On specimens that",
    ):
        assert words in out
    assert "Written to run: federation.toml, report.html" in " ".join(err.split())
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert written == {
        ".lock",
        "federation.toml",
        "report.html",
        "study.db",
        "sweep.json",
        "trials.csv",
    }
    record = json.loads((tmp_path / "run" / "sweep.json").read_text())
    assert record["chosen"]["training.learning_rate"] == 3e-2
    assert {row["target"]: row["share"] > 0 for row in record["worth"]}["strength"]
    chosen = load_federation(tmp_path / "run")
    assert chosen.fingerprint() == record["chosen_fingerprint"]
    assert chosen.training.learning_rate == 3e-2
    # a finished sweep is told again, and nothing is trained
    again, err = (process := begin(labs, GRID, "--out", "run", "--json")).communicate(
        timeout=BOUND_S
    )
    assert process.returncode == 0, err
    assert json.loads(again) == record


def test_one_that_is_interrupted_says_how_to_go_on(
    begin: Callable[..., subprocess.Popen[str]], labs: Path, tmp_path: Path
) -> None:
    sweep = {"trials": 400, "search": {"training.learning_rate": {"low": 1e-4, "high": 1e-1}}}
    process = begin(labs, sweep, "--out", "run")
    assert process.stderr is not None
    assert "Engine: inprocess" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=BOUND_S)
    assert process.returncode == 130, err
    message = " ".join(err.split())
    assert "Stopped; finished trials are kept. Go on with: crossply sweep" in message
    assert message.endswith("sweep.toml --out run")
    assert not list((tmp_path / "run").glob(".features-*"))


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ({"search": {"training.round": {"low": 1, "high": 2}}}, "unknown key 'training.round'"),
        ({"search": {"training.lr": {"low": 1, "high": 2}}}, "key is 'training.learning_rate'"),
        ({"search": {"training.rounds": {"low": 3, "high": 2}}}, "low must be below high"),
    ],
)
def test_bad_input_is_one_sentence_before_any_work(
    begin: Callable[..., subprocess.Popen[str]],
    labs: Path,
    tmp_path: Path,
    sweep: dict[str, Any],
    said: str,
) -> None:
    process = begin(labs, sweep, "--out", "run")
    out, err = process.communicate(timeout=BOUND_S)
    assert (process.returncode, out) == (1, "")
    assert err.startswith("crossply: sweep.toml: ") and said in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_too_many_folds_are_said(begin: Callable[..., subprocess.Popen[str]], labs: Path) -> None:
    process = begin(labs, GRID | {"inner_folds": 30}, "--out", "run")
    _, err = process.communicate(timeout=BOUND_S)
    assert process.returncode == 1
    assert "cannot be split into 30 folds, which a sweep asks for by inner_folds = 30" in err
