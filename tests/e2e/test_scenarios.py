"""``crossply simulate`` with a scenario, as a person runs it."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

import crossply as crossply_command
from client.feature_store import default_folder


@pytest.fixture
def labs(tmp_path: Path, make_lab: Callable[[str], Any]) -> Path:
    """Two folders of 24 specimens each."""
    for name in ("labs/aachen", "labs/bremen"):
        made = make_lab(name)
    federation = made.federation | {
        "backbone": {"name": "efficientnet_lite0"},
        "training": {"rounds": 4, "quorum": 0.5},
        "privacy": {"min_specimens": 8},
    }
    (tmp_path / "labs" / "federation.toml").write_text(tomli_w.dumps(federation))
    return tmp_path / "labs"


@pytest.fixture
def simulate(
    labs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process, with a cache of the test's own."""
    monkeypatch.setenv("CROSSPLY_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["crossply", "simulate", str(labs), *arguments])
        with pytest.raises(SystemExit) as ended:
            crossply_command.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def test_a_scenario_from_the_command_line(
    simulate: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    settings = [
        "simulation.partition=dirichlet",
        "simulation.labs=4",
        "simulation.alpha=0.3",
        "simulation.target=modulus",
        "simulation.dropout=0.3",
        'simulation.hostile={lab-004={attack="sign_flip"}}',
        "simulation.feature_shift={lab-002=0.5}",
    ]
    options = [part for setting in settings for part in ("--set", setting)]
    code, out, err = simulate("--mode", "federated", *options, "--out", "run")
    assert code == 0, err
    assert "What happened: another microscope 1, " in " ".join(out.split())
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["scenario"]["specimens"] == dict.fromkeys(
        ["lab-001", "lab-002", "lab-003", "lab-004"], 12
    )
    kinds = {event["kind"] for event in result["events"]}
    assert kinds >= {"another microscope", "sign flip", "dropped out"}
    assert default_folder().exists()

    # from the file that the run has left, on the other engine
    table = (tmp_path / "run" / "federation.toml").read_bytes()
    (tmp_path / "labs" / "federation.toml").write_bytes(table)
    code, _, err = simulate("--mode", "federated", "--engine", "batched", "--out", "again")
    assert code == 0, err
    again = json.loads((tmp_path / "again" / "result.json").read_text())
    assert again["events"] == result["events"]
    assert again["fingerprint"] == result["fingerprint"]


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("simulation={partition='iid',labs=7}", "labs = 7 cannot be cut from 48 specimens"),
        ("simulation.dropout=2", "dropout.every: Input should be less than or equal to 1"),
        ("simulation.leave={aachen=5}", "leave.aachen names round 5, and training.rounds is 4"),
        ("simulation.slow={aachen=2.0}", "slow needs seconds_per_specimen"),
        ("simulation.away={celle=[2]}", "away names the lab 'celle'"),
        ("simulation.drop_out=0.1", "the closest known key is 'dropout'"),
        ("simulation=0.2", "[simulation] is a table, found 0.2"),
        ("simulation.dropout=1", "round 1 lacks 2 of 2 labs (aachen, bremen)"),
    ],
)
def test_what_cannot_be_is_one_sentence_before_any_work(
    simulate: Callable[..., tuple[int, str, str]], setting: str, sentence: str
) -> None:
    code, out, err = simulate("--set", setting)
    assert (code, out) == (1, "")
    assert re.search(re.escape(sentence), " ".join(err.split()))
    assert "Traceback" not in err
    # no feature was made, nor asked for
    assert not default_folder().exists()


def test_a_run_that_cannot_go_on_says_who_was_missing(
    simulate: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    settings = ("simulation={seconds_per_specimen=60.0}", "training.round_deadline='1 min'")
    options = [part for setting in settings for part in ("--set", setting)]
    code, _, err = simulate("--mode", "federated", *options, "--out", "run")
    assert code == 1
    words = " ".join(err.split())
    assert "round 1: 0 of 2 labs took part and the quorum is 1; missing: " in words
    assert "aachen (no reply in time)" in words and "bremen (no reply in time)" in words
    assert not (tmp_path / "run" / "result.json").exists()
