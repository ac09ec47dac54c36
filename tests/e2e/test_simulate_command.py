"""``crossply simulate`` as a person runs it, in a process of its own."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

import crossply as crossply_command
from common.errors import ConfigurationError

MODES = ("federated", "centralized", "local", "ridge", "random_forest")
BOUND_S = 300


@pytest.fixture
def crossply(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command with a cache of the test's own, in a bounded time."""
    environment = os.environ | {
        "CROSSPLY_CACHE": str(tmp_path / "cache"),
        "COLUMNS": "100",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "crossply", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=BOUND_S,
            env=environment,
            cwd=tmp_path,
            check=False,
        )

    return run


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def crossply_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Run the command in this process, which spares its imports."""
    monkeypatch.setenv("CROSSPLY_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["crossply", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            crossply_command.main()
        captured = capsys.readouterr()
        return Done(int(ended.value.code or 0), captured.out, captured.err)

    return run


def brightness_lab(lab: Any, unit: str, factor: float) -> None:
    """Let the strength follow the grey level, so that there is something to learn."""
    generator = np.random.default_rng(len(lab.path.name))
    for row in lab.rows:
        level = generator.uniform(40, 210)
        noise = generator.normal(0, 12, (48, 64))
        lab.write_image(f"{row[0]}.png", np.clip(level + noise, 1, 254).astype(np.uint8))
        row[1] = f"{(300 + 5 * level) * factor:.6g}"
    lab.settings["targets"]["strength"]["unit"] = unit
    lab.write()
    (lab.path / "federation.toml").unlink()


@pytest.fixture
def labs(make_lab: Callable[[str], Any], tmp_path: Path) -> Path:
    """A folder of three labs: one in ksi, one without the modulus."""
    folder = tmp_path / "labs"
    made = [make_lab(f"labs/{name}") for name in ("aachen", "bremen", "celle")]
    del made[2].settings["targets"]["modulus"]
    for lab, unit, factor in zip(made, ("MPa", "ksi", "MPa"), (1, 0.1450377377, 1), strict=True):
        brightness_lab(lab, unit, factor)
    federation = made[0].federation | {
        "backbone": {"name": "efficientnet_lite0"},
        "training": {"rounds": 15, "learning_rate": 5e-3},
        "privacy": {"min_specimens": 20},
    }
    (folder / "federation.toml").write_text(tomli_w.dumps(federation))
    return folder


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every line of the file is JSON."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_folder_of_labs(
    crossply: Callable[..., subprocess.CompletedProcess[str]], labs: Path, tmp_path: Path
) -> None:
    done = crossply("simulate", labs, "--folds", 2, "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "Engine: inprocess, 3 labs one after the other (auto" in " ".join(done.stderr.split())
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert set(result["modes"]) == set(MODES)
    for mode in MODES:
        strength = result["modes"][mode]["strength"]
        assert set(strength) == {"r2", "mae", "rmse", "num_specimens"}
        assert strength["num_specimens"] == 72
        assert result["modes"][mode]["modulus"]["num_specimens"] == 48
        assert strength["r2"] > 0.5, (mode, strength)
    assert result["labs"]["celle"]["federated"]["modulus"]["num_specimens"] == 0
    assert set(result["seconds"]) == {"features", "evidence", *MODES}
    assert [(r["fold"], r["round"]) for r in result["rounds"]] == [
        (fold, number) for fold in range(2) for number in range(1, 16)
    ]
    assert all(r["labs"] == ["aachen", "bremen", "celle"] for r in result["rounds"])
    lines = read_lines(tmp_path / "run" / "rounds.jsonl")
    assert [
        (line["fold"], line["server_round"], line["train_loss"], line["labs"]) for line in lines
    ] == [(r["fold"], r["round"], r["loss"], r["labs"]) for r in result["rounds"]]
    assert all(0 < line["seconds"] < BOUND_S for line in lines)
    assert len(result["fingerprint"]) == 64 and result["seed"] == 0
    assert result["versions"]["flwr"] == "1.41.0"
    for words in ("federated: weights shared", "joining", "Over all labs the error"):
        assert words in done.stdout
    assert (tmp_path / "run" / "parity.png").read_bytes().startswith(b"\x89PNG")

    with (tmp_path / "run" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 72
    # bremen's values are in MPa here, whatever its own table is written in
    measured = [float(row["strength (MPa)"]) for row in rows if row["lab"] == "bremen"]
    assert 480 < min(measured) < max(measured) < 1400
    assert all(row["modulus (GPa)"] == "" for row in rows if row["lab"] == "celle")

    again = crossply("simulate", labs, "--folds", 2, "--out", "again", "--json")
    assert again.returncode == 0, again.stderr
    printed = json.loads(again.stdout)
    assert printed["modes"] == result["modes"] and printed["rounds"] == result["rounds"]
    assert (tmp_path / "again" / "predictions.csv").read_bytes() == (
        tmp_path / "run" / "predictions.csv"
    ).read_bytes()

    refused = crossply("simulate", labs, "--out", "run")
    assert refused.returncode == 1
    assert "run holds a run already" in refused.stderr


def test_a_pooled_data_set_and_the_options(
    crossply: Callable[..., subprocess.CompletedProcess[str]], lab: Any, tmp_path: Path
) -> None:
    lab.federation["backbone"] = {"name": "efficientnet_lite0"}
    lab.federation["privacy"] = {"min_specimens": 5}
    lab.settings["partition"] = {"column": "site"}
    lab.add_column("site", ["north", "south"] * 12)
    lab.write()
    done = crossply(
        "simulate", lab.path, "--mode", "federated", "--mode", "local", "--rounds", 2,
        "--set", "training.learning_rate=3e-4", "--set", "training.strategy=median",
        "--json", "--out", "run", "--track", "tensorboard", "--track", "tensorboard",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    files = sorted((tmp_path / "run" / "tensorboard").glob("*/events.out.tfevents.*"))
    assert [path.parent.name for path in files] == ["fold-0", "run"]
    assert set(result["modes"]) == {"federated", "local"}
    assert [r["round"] for r in result["rounds"]] == [1, 2]
    assert set(result["labs"]) == {"north", "south"}
    # about one fifth of each lab's twelve specimens is held out: two or three
    assert 4 <= result["modes"]["local"]["strength"]["num_specimens"] <= 6
    used = (tmp_path / "run" / "federation.toml").read_text()
    assert "learning_rate = 0.0003" in used and 'strategy = "median"' in used


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--mode", "magic"], 1, "there is no such mode; choose among federated"),
        (
            ["--set", "training.rouns=3"],
            1,
            "the closest known key is 'rounds'",
        ),
        (["--set", "rounds=1"], 1, "the closest known key is 'training.rounds'"),
        (["--set", "nonsense"], 1, "write KEY=VALUE"),
        (["--folds", "30"], 1, "cannot be split into 30 folds"),
        (["--out", "file"], 1, "file cannot be written to"),
        (["--out", "file/run"], 1, "file/run cannot be written to"),
        (["--folds", "1"], 2, "1 is not in the range"),
        (["--bogus"], 2, "No such option"),
        (["--engine", "ray"], 1, "--engine ray: there is no such engine; choose among auto"),
        (["--track", "wandb"], 1, "there is no such tracker; choose among tensorboard, mlflow"),
    ],
)
def test_wrong_use_is_one_sentence(
    crossply_here: Callable[..., Done],
    labs: Path,
    arguments: list[str],
    status: int,
    message: str,
) -> None:
    (labs.parent / "file").write_text("not a folder")
    done = crossply_here("simulate", labs, *arguments)
    assert done.returncode == status
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("option", "module", "extra"),
    [
        (("--engine", "flower-ray"), "ray", "ray"),
        (("--track", "tensorboard"), "tensorboard", "tensorboard"),
        (("--track", "mlflow"), "mlflow", "mlflow"),
    ],
)
def test_an_extra_that_is_missing_is_named_before_any_work(
    crossply_here: Callable[..., Done],
    labs: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: tuple[str, str],
    module: str,
    extra: str,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    done = crossply_here("simulate", labs, *option, "--out", "run")
    assert done.returncode == 1
    assert f'pip install "crossply[{extra}]"' in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (labs.parent / "run").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no folder", "gone does not exist; name a folder of lab folders"),
        ("one lab", "found 1 folders with a lab.toml; expected two labs"),
        ("bad table", "strength"),
    ],
)
def test_bad_data_is_one_sentence(
    crossply_here: Callable[..., Done],
    labs: Path,
    tmp_path: Path,
    damage: str,
    message: str,
) -> None:
    if damage == "one lab":
        for name in ("bremen", "celle"):
            (labs / name / "lab.toml").unlink()
    elif damage == "bad table":
        table = labs / "celle" / "tests.csv"
        table.write_text(table.read_text().replace("S05,", "S05,x"))
    done = crossply_here(
        "simulate", labs / "gone" if damage == "no folder" else labs, "--rounds", 1
    )
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/*"))


def test_what_is_no_folder_of_labs_says_what_to_name(
    crossply_here: Callable[..., Done], labs: Path, tmp_path: Path
) -> None:
    one = crossply_here("simulate", labs / "celle").stderr
    assert f"celle is the folder of one lab; name the one of all labs, {labs}" in one
    file = crossply_here("simulate", labs / "federation.toml").stderr
    assert "federation.toml is a file; name a folder of lab folders" in file
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no federation.toml" in crossply_here("simulate", empty).stderr


def test_a_bad_image_costs_its_specimen_alone(
    crossply_here: Callable[..., Done],
    labs: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = labs / "bremen" / "images" / "S03.png"
    path.write_bytes(path.read_bytes()[:400])
    done = crossply_here("simulate", labs, "--rounds", 1, "--mode", "local")
    assert done.returncode == 0
    assert "S03.png: is a truncated or damaged PNG file" in caplog.text
    (run,) = tmp_path.glob("runs/*")
    told = " ".join(done.stderr.split()).partition(f"Written to runs/{run.name}: ")[2]
    assert sorted(told.split(", ")) == sorted(
        path.name + "/" * path.is_dir() for path in run.iterdir()
    )


def test_centralised_is_the_mode_that_tables_spell_so(
    crossply_here: Callable[..., Done], labs: Path
) -> None:
    done = crossply_here("simulate", labs, "--rounds", 1, "--mode", "centralised", "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["modes"]) == {"centralized"}


def test_help_names_the_commands(
    crossply_here: Callable[..., Done],
) -> None:
    done = crossply_here("--help")
    assert done.returncode == 0
    for command in ("lab", "simulate", "demo"):
        assert command in done.stdout


def test_debug_lets_the_error_through(
    crossply_here: Callable[..., Done], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["crossply", "--debug", "simulate", str(tmp_path / "gone")])
    with pytest.raises(ConfigurationError, match="gone does not exist"):
        crossply_command.main()


def test_help_imports_nothing_heavy() -> None:
    """Start-up time is not tested, what costs it is."""
    script = (
        "import sys, crossply\n"
        "heavy = {'torch', 'flwr', 'numpy', 'cv2', 'pandas', 'pydantic', 'pint', 'matplotlib'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
