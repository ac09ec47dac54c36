"""Extraction as it runs at a lab: killed, crowded, described, and never growing."""

import importlib
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
import tomli_w

import client.pipeline
from client.dataset import load_dataset
from client.descriptors import describe
from client.engine_choice import EngineChoice
from client.engines import Engine, load_engine
from client.feature_store import FeatureStore
from client.features import extract
from client.micrographs import read_micrograph
from client.pipeline import RefusedSpecimen, SpecimenJob, SpecimenVectors, run_pipeline
from client.pooling import pool_tiles
from client.preparation import PrepareTask
from client.reading.checksums import sha256_of
from client.settings import Data
from client.specimens import Specimens
from client.workers import WORKERS
from common.federation import Backbone, Federation, Imaging
from common.stopping import Stopped

LITE0 = Backbone(name="efficientnet_lite0")
DATA = Data(table="t.csv", images=".", specimen="id", image="{id}.png")
IMAGING = Imaging(scale="pixels", tile_px=32)


@pytest.fixture
def lab(lab: Any) -> Any:
    """The good lab folder, under a backbone whose weights are at hand, with four tiles each."""
    lab.federation["backbone"] = {"name": "efficientnet_lite0"}
    lab.write()
    return lab


def features_of(lab: Any, kept: Path) -> Specimens:
    federation = Federation.model_validate(lab.federation)
    return extract(load_dataset(lab.path, federation), federation, FeatureStore(kept))


def job(row: int, path: Path) -> SpecimenJob:
    task = PrepareTask(path=path, sha256=sha256_of(path), data=DATA, imaging=IMAGING)
    return SpecimenJob(row=row, names=(path.name,), tasks=(task,))


def torch_engine() -> Engine:
    choice = EngineChoice(engine="torch", device="cpu", precision="float32")
    return load_engine(LITE0, 32, choice)


@dataclass
class Gathering:
    """An engine that wants many tiles at once, as a GPU does; notes how many it was given."""

    engine: Engine
    tiles_at_once: int
    given: list[int] = field(default_factory=list)

    def vectors(self, tiles: np.ndarray) -> np.ndarray:
        self.given.append(len(tiles))
        return self.engine.vectors(tiles)


def test_specimens_that_share_a_batch_keep_their_own_tiles(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{row}.png" for row in range(7)]
    for row, path in enumerate(paths):
        cv2.imwrite(str(path), rng.integers(0, 255, (32 + 16 * row, 40), dtype=np.uint8))
    paths[3].write_bytes(b"no image")

    def outcomes(engine: Engine, jobs_at_once: int) -> dict[int, Any]:
        jobs = [job(row, path) for row, path in enumerate(paths)]
        return {done.row: done for done in run_pipeline(jobs, engine, jobs_at_once=jobs_at_once)}

    gathering = Gathering(torch_engine(), tiles_at_once=10)
    alone, together = outcomes(torch_engine(), 1), outcomes(gathering, 5)
    # of the first five specimens 2 + 4 + 4 tiles, then 6; of the last two 8 + 8
    assert sorted(gathering.given) == [6, 10, 16]
    assert alone.keys() == together.keys() == set(range(7))
    for row in range(7):
        if row == 3:
            assert isinstance(together[row], RefusedSpecimen)
            continue
        assert len(alone[row].tiles) == len(together[row].tiles) > 0
        np.testing.assert_allclose(together[row].tiles, alone[row].tiles, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(("tiles_at_once", "most"), [(1, 6), (16, 18)])
def test_a_specimen_with_many_micrographs_is_not_held_at_once(
    tmp_path: Path, tiles_at_once: int, most: int
) -> None:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(20)]
    for path in paths:
        cv2.imwrite(str(path), rng.integers(0, 255, (64, 96), dtype=np.uint8))
    tasks = [job(0, path).tasks[0] for path in paths]
    whole = SpecimenJob(row=0, names=tuple(map(str, paths)), tasks=tuple(tasks))
    engine = Gathering(torch_engine(), tiles_at_once)
    (found,) = run_pipeline([whole], engine)
    assert isinstance(found, SpecimenVectors) and len(found.tiles) == 20 * 6
    assert sum(engine.given) == 20 * 6 and max(engine.given) == most
    (by_itself,) = run_pipeline([job(7, paths[7])], torch_engine())
    assert isinstance(by_itself, SpecimenVectors)
    ours, alone = found.tiles[42:48], by_itself.tiles
    if tiles_at_once == 1:
        # as on a processor: no micrograph shares a batch, so that this holds to the bit
        np.testing.assert_array_equal(ours, alone)
    np.testing.assert_allclose(ours, alone, rtol=1e-4, atol=2e-5)


def test_jobs_are_read_as_the_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((32, 32), 9, dtype=np.uint8))
    read = count()

    class Means:
        tiles_at_once = 1

        def vectors(self, tiles: np.ndarray) -> np.ndarray:
            return np.asarray(tiles.mean(axis=(1, 2))[:, None])

    def endless() -> Any:
        while True:
            yield job(next(read), tmp_path / "a.png")

    monkeypatch.setattr(client.pipeline, "usable_cores", lambda: 2)
    outcomes = run_pipeline(endless(), Means())
    process, sizes = psutil.Process(), []
    for done in range(4000):
        assert isinstance(next(outcomes), SpecimenVectors)
        if done in (1000, 3999):
            sizes.append(process.memory_info().rss)
    outcomes.close()
    assert next(read) <= 4000 + 5
    # a kilobyte an image at most, so that 100 000 take no more than their vectors do
    assert sizes[1] - sizes[0] < 3e6


SLOW = """
import time
from dataclasses import dataclass

@dataclass(frozen=True)
class Slow:
    def run(self):
        time.sleep(100)
"""


def test_it_is_left_at_once_and_the_workers_serve_whoever_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_tasks.py").write_text(SLOW)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(client.pipeline, "usable_cores", lambda: 2)
    slow = importlib.import_module("slow_tasks").Slow()
    # processes of earlier tests do not find the module
    WORKERS.end()
    cv2.imwrite(str(tmp_path / "a.png"), np.full((32, 32), 9, dtype=np.uint8))
    first = job(0, tmp_path / "a.png")
    jobs = [first, *(SpecimenJob(row=n, names=("s",) * 3, tasks=(slow,) * 3) for n in (1, 2, 3))]
    engine, heard = torch_engine(), list[str]()
    outcomes = run_pipeline(jobs, engine, on_micrograph=lambda: heard.append("one"))
    assert next(outcomes).row == 0
    time.sleep(0.5)
    started = time.monotonic()
    with pytest.raises(Stopped):
        outcomes.throw(Stopped)
    assert time.monotonic() - started < 30
    # nothing is said of what was under way
    assert heard == ["one"]
    (again,) = run_pipeline([first], engine)
    assert isinstance(again, SpecimenVectors)
    del sys.modules["slow_tasks"]


KILLED = """
import os
import sys
from pathlib import Path
import client.features
import client.pipeline
from client.dataset import load_dataset
from client.descriptors import describe
from client.feature_store import FeatureStore
from common.federation import load_federation
client.features.KEEP_EVERY_S = 0.0
client.pipeline.usable_cores = lambda: 2
federation = load_federation(Path(sys.argv[1]))
dataset = load_dataset(Path(sys.argv[1]), federation)
store = FeatureStore(Path(sys.argv[2]))
# in one piece, since threads report at once
client.features.extract(dataset, federation, store, lambda: os.write(1, b"one\\n"))
"""


def test_killed_and_called_again_makes_what_is_missing_alone(
    lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lab.path / "federation.toml").write_text(tomli_w.dumps(lab.federation))
    command = [sys.executable, "-c", KILLED, str(lab.path), str(tmp_path / "kept")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        for _ in range(10):
            assert killed.stdout.readline() == "one\n"
        workers = psutil.Process(killed.pid).children(recursive=True)
        killed.send_signal(signal.SIGKILL)
    assert workers
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive, "a worker outlives its lab"
    kept = FeatureStore(tmp_path / "kept").summary().num_vectors
    assert 5 <= kept < 24
    made: list[int] = []

    def counted(vectors: np.ndarray, imaging: Imaging) -> np.ndarray:
        made.append(1)
        return pool_tiles(vectors, imaging)

    monkeypatch.setattr("client.features.pool_tiles", counted)
    again = features_of(lab, tmp_path / "kept")
    assert len(made) == 24 - kept
    np.testing.assert_array_equal(again.features, features_of(lab, tmp_path / "new").features)


def test_descriptors_follow_the_deep_features_and_cost_no_network(
    lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = features_of(lab, tmp_path / "kept")
    lab.federation["descriptors"] = {"names": ("grey_entropy", "noise")}
    lab.write()
    monkeypatch.setattr("client.features.pool_tiles", _never)
    described = features_of(lab, tmp_path / "kept")
    assert described.features.shape == (24, 2562)
    np.testing.assert_array_equal(described.features[:, :2560], plain.features)
    entropy, noise = described.features[:, 2560:].T
    assert (entropy > 3).all() and (noise > 0).all()
    federation = Federation.model_validate(lab.federation)
    assert federation.named_features == {"grey_entropy": "bit", "noise": "dimensionless"}
    assert federation.num_features == 2562


def test_a_specimens_micrographs_share_their_descriptors(lab: Any, tmp_path: Path) -> None:
    names = ("grey_entropy", "void_largest_diameter_um")
    lab.federation["descriptors"] = {"names": names}
    lab.settings["data"]["image"] = "{id}*.png"
    lab.write()
    spotted = cv2.circle(np.full((80, 80), 128, dtype=np.uint8), (40, 40), 15, 20, -1)
    paths = [lab.images / "S01.png", lab.write_image("S01-b.png", spotted)]
    values = [describe(read_micrograph(path, DATA), names, None) for path in paths]
    assert np.isnan(values[0][1]) and values[1][1] == pytest.approx(30, rel=0.05)
    found = features_of(lab, tmp_path / "kept").features[0, 2560:]
    # the entropy is the mean of both, the diameter that of the only void
    expected = [(values[0][0] + values[1][0]) / 2, values[1][1]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def _never(*_: object) -> None:
    raise AssertionError("kept deep features were made again")


def test_an_engine_that_fails_is_an_error_and_leaves_what_was_made(
    lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count()

    class Failing:
        tiles_at_once = 1

        def vectors(self, tiles: np.ndarray) -> np.ndarray:
            if next(calls) >= 10:
                raise RuntimeError("out of memory")
            return np.ones((len(tiles), 1280), dtype=np.float32)

    monkeypatch.setattr("client.engines.load_engine", lambda *_: Failing())
    with pytest.raises(RuntimeError, match="out of memory"):
        features_of(lab, tmp_path / "kept")
    assert 1 <= FeatureStore(tmp_path / "kept").summary().num_vectors <= 10
