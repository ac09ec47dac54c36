"""The same two apps on Flower's own SuperLink and SuperNodes: real processes, TLS, loopback."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from benchmarks.flower_cluster import Cluster, flower_environment
from client.app import client_app
from client.opening import open_lab
from common.bundle import Model
from common.federation import load_federation
from common.sealed import read_sealed
from server.rounds import run_federation
from simulation.grid import InProcessGrid

ROOT = Path(__file__).parents[2]

LABS = ("north", "south")

RUN_S = 300.0
"""Flower starts a process for each message, which imports torch anew."""


@pytest.fixture
def cluster(tmp_path: Path, feature_cache: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path, flower_environment(CROSSPLY_CACHE=str(feature_cache)))
    yield made
    made.close()


@pytest.fixture
def agreement(tmp_path: Path, make_lab: Callable[[str], Any]) -> Path:
    """The labs' folders, and the agreement beside them."""
    labs = [make_lab(name) for name in LABS]
    path = tmp_path / "federation.toml"
    terms = labs[0].federation | {
        "backbone": {"name": "efficientnet_lite0"},
        "head": {"hidden": [8]},
        "training": {"rounds": 1, "quorum": 1.0, "round_deadline": "2 min"},
        "privacy": {"min_specimens": 4},
    }
    path.write_text(tomli_w.dumps(terms))
    return path


def in_one_process(folder: Path, agreement: Path) -> Any:
    federation = load_federation(agreement)
    labs = {name: open_lab(folder / name, federation) for name in LABS}
    app = client_app(lambda context: labs[str(context.node_config["lab"])])
    return run_federation(InProcessGrid(app, {name: {"lab": name} for name in LABS}), federation)


def test_a_run_on_superlink_and_supernodes_has_the_bits_of_a_run_in_one_process(
    cluster: Cluster, agreement: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSPLY_CACHE", cluster.environment["CROSSPLY_CACHE"])
    expected = in_one_process(cluster.folder, agreement)
    kept = {name: cluster.folder / f"model-{name}" for name in LABS}
    cluster.open(
        agreement,
        {
            name: f'lab="{cluster.folder / name}" federation="{agreement}" model="{kept[name]}"'
            for name in LABS
        },
    )
    result = cluster.folder / "result"
    status = cluster.run(ROOT, f'federation="{agreement}" result="{result}"', RUN_S)

    assert status == "finished:completed", cluster.logs()
    model = Model.load(result / "model" / "model.safetensors")
    assert model.head.keys() == expected.head.keys()
    for name, array in expected.head.items():
        np.testing.assert_array_equal(model.head[name], array)
    record = json.loads((result / "result.json").read_text())
    assert record["labs"] == record["have_the_model"] == ["north", "south"]
    assert [entry["labs"] for entry in record["rounds"]] == [["north", "south"]]
    for path in kept.values():
        assert read_sealed(path) == read_sealed(result / "model")
