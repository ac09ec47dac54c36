"""TensorBoard and MLflow read what they are told, nothing else, and never cost a run."""

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from common.errors import ConfigurationError
from common.federation import Federation
from common.round_log import RoundLine
from simulation.tracking.trackers import TRACKERS, Error, require_trackers, settings_of, tracked

LAB = "aachen-steel"

installed = [name for name, module in TRACKERS.items() if find_spec(module) is not None]

needs_tensorboard = pytest.mark.skipif(
    "tensorboard" not in installed, reason='pip install "crossply[tensorboard]"'
)
# what MLflow still asks of SQLAlchemy, which SQLAlchemy is about to drop
mlflow_is_behind = pytest.mark.filterwarnings("ignore::DeprecationWarning")
needs_mlflow = pytest.mark.skipif(
    "mlflow" not in installed, reason='pip install "crossply[mlflow]"'
)


def agreement() -> Federation:
    return Federation.model_validate(
        {
            "name": "test",
            "targets": {"α, β": {"unit": "µm", "range": [0, 200]}},
            "imaging": {"scale": "fit"},
            "backbone": {"name": "resnet18"},
            "training": {"rounds": 2, "learning_rate": 0.5},
        }
    )


def line(server_round: int, fold: int = 0) -> RoundLine:
    return RoundLine(
        fold=fold,
        server_round=server_round,
        train_loss=1 / server_round,
        labs=(LAB, "bremen", "celle"),
        failed={"dresden": "no reply in time"},
        quarantined={},
        out=(),
        seconds=0.25,
    )


ERRORS = [
    Error(mode="federated", target="α, β", unit="µm", rmse=3.0, mae=2.0, r2=0.5),
    Error(mode="local", target="α, β", unit="µm", rmse=4.0, mae=3.0, r2=None),
]


def track(names: Sequence[str], folder: Path, folds: Sequence[int] = (0, 1)) -> list[str]:
    warnings: list[str] = []
    with tracked(names, folder, agreement(), warnings.append) as trackers:
        for fold in folds:
            for server_round in (1, 2):
                for tracker in trackers:
                    tracker.round(line(server_round, fold))
        for tracker in trackers:
            tracker.finished(ERRORS)
    return warnings


def test_no_path_of_this_machine_is_a_setting() -> None:
    weights = {"name": "resnet18", "weights": "/home/anna/steel.pth", "sha256": "a" * 64}
    data = agreement().model_dump() | {"backbone": weights}
    assert settings_of(Federation.model_validate(data))["backbone.weights"] == "file"


@needs_tensorboard
def test_tensorboard_reads_its_own_files(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    assert track(["tensorboard"], tmp_path) == []
    folder = tmp_path / "tensorboard"
    assert sorted(path.name for path in folder.iterdir()) == ["fold-0", "fold-1", "run"]
    fold = EventAccumulator(str(folder / "fold-1")).Reload()
    assert fold.Tags()["scalars"] == ["round/loss", "round/share of labs", "round/seconds"]
    assert [(event.step, event.value) for event in fold.Scalars("round/loss")] == [(1, 1), (2, 0.5)]
    assert {event.value for event in fold.Scalars("round/share of labs")} == {0.75}
    whole = EventAccumulator(str(folder / "run")).Reload()
    assert {tag: whole.Scalars(tag)[0].value for tag in whole.Tags()["scalars"]} == {
        "rmse/federated/α, β (µm)": 3.0,
        "mae/federated/α, β (µm)": 2.0,
        "r2/federated/α, β": 0.5,
        "rmse/local/α, β (µm)": 4.0,
        "mae/local/α, β (µm)": 3.0,
    }
    started = whole.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    found = HParamsPluginData.FromString(started).session_start_info.hparams
    assert found["training.learning_rate"].number_value == 0.5
    assert found["targets.α, β.unit"].string_value == "µm"


@needs_mlflow
@mlflow_is_behind
def test_mlflow_reads_the_database_in_the_run(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    assert track(["mlflow"], tmp_path) == []
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("test")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == tmp_path.name
    losses = client.get_metric_history(run.info.run_id, "fold 1/loss")
    assert [(metric.step, metric.value) for metric in losses] == [(1, 1.0), (2, 0.5)]
    assert run.data.params["training.learning_rate"] == "0.5"
    assert run.data.params["targets.α_ β.unit"] == "µm"
    assert run.data.metrics["rmse/federated/α_ β"] == 3.0
    assert "r2/local/α_ β" not in run.data.metrics
    # neither the user nor the state of git
    assert run.data.tags == {"mlflow.runName": tmp_path.name}


@mlflow_is_behind
@pytest.mark.parametrize("name", installed)
def test_a_run_that_fails_is_closed_too(tmp_path: Path, name: str) -> None:
    with (
        pytest.raises(RuntimeError, match="the run fails"),
        tracked([name], tmp_path, agreement(), pytest.fail) as trackers,
    ):
        trackers[0].round(line(1))
        raise RuntimeError("the run fails")
    if name == "mlflow":
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
        (run,) = client.search_runs(["1"])
        assert run.info.status == "FAILED" and run.data.metrics["fold 0/loss"] == 1.0


TRACKS = """
import json, resource, sys
from pathlib import Path

asked = []

def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        asked.append(str(arguments[1:]))

sys.addaudithook(hook)
sys.path.insert(0, sys.argv[1])
from test_tracking import ERRORS, agreement, line, tracked

folder, warnings = Path(sys.argv[2]), []
with tracked(sys.argv[4:], folder, agreement(), warnings.append) as trackers:
    if sys.argv[3] == "full":
        largest = max(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    for number in range(1, 3000):
        for tracker in trackers:
            tracker.round(line(number))
    for tracker in trackers:
        tracker.finished(ERRORS)
print(json.dumps([asked, warnings]))
"""


def in_a_process(folder: Path, disk: str, *names: str) -> tuple[list[str], list[str], str]:
    done = subprocess.run(
        [sys.executable, "-c", TRACKS, str(Path(__file__).parent), str(folder), disk, *names],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    asked, warnings = json.loads(done.stdout)
    return asked, warnings, done.stderr


@pytest.mark.skipif(not installed, reason="no tracker is installed")
def test_nothing_leaves_the_machine_and_no_lab_is_named(tmp_path: Path) -> None:
    asked, warnings, said = in_a_process(tmp_path, "free", *installed)
    assert (asked, warnings, said) == ([], [], "")
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"training.learning_rate" in written
    for private in (LAB, "dresden", "no reply in time"):
        assert private.encode() not in written


@pytest.mark.parametrize("name", installed)
def test_a_full_disk_costs_one_warning_and_not_the_run(tmp_path: Path, name: str) -> None:
    _, warnings, said = in_a_process(tmp_path, "full", name)
    assert len(warnings) == 1 and said == ""
    assert warnings[0].startswith(f"{name} tracks no longer, the run goes on: ")


@needs_mlflow
def test_a_server_that_is_not_there_is_named_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with (
        pytest.raises(ConfigurationError, match=r"--track mlflow: .*127\.0\.0\.1"),
        tracked(["mlflow"], tmp_path, agreement(), pytest.fail),
    ):
        pytest.fail("it went on")


@pytest.mark.parametrize("name", list(TRACKERS))
def test_a_missing_extra_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, TRACKERS[name], None)
    with pytest.raises(ConfigurationError, match=rf'pip install "crossply\[{name}\]"'):
        require_trackers([name])


@pytest.mark.parametrize("name", installed)
def test_a_folder_that_cannot_be_written_to_is_told_before_any_work(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").write_text("no folder")
    with (
        pytest.raises(ConfigurationError, match=f"--track {name}: "),
        tracked([name], tmp_path / "file", agreement(), pytest.fail),
    ):
        pytest.fail("it went on")
