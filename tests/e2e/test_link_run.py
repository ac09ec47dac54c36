"""A run over the link: processes, certificates, and the bits of the run in one process."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.loopback import Consortium
from client.app import client_app
from client.opening import open_lab
from common.federation import load_federation
from common.sealed import read_sealed
from server.rounds import run_federation
from simulation.grid import InProcessGrid

LABS = ("aachen", "bremen", "celle")


def in_process(site: Consortium, agreement: Path) -> Any:
    federation = load_federation(agreement)
    labs = {lab: open_lab(site.folder / f"data-{lab}", federation, lab) for lab in LABS}
    app = client_app(lambda context: labs[str(context.node_config["lab"])])
    return run_federation(InProcessGrid(app, {lab: {"lab": lab} for lab in labs}), federation)


@pytest.mark.parametrize(
    "training",
    [
        {"rounds": 4, "strategy": "fedavg", "cross_evaluation": True},
        {"rounds": 4, "strategy": "fedyogi"},
        {"rounds": 1, "strategy": "ridge", "hidden": ()},
        {"rounds": 3, "strategy": "fedavg", "projection": "pca"},
        {"rounds": 3, "strategy": "fedavg", "projection": "random"},
    ],
    ids=lambda training: f"{training['strategy']}, {training.get('projection', 'none')}",
)
def test_law_3_a_run_over_the_link_has_the_bits_of_a_run_in_one_process(
    site: Consortium, training: dict[str, Any]
) -> None:
    site.joined(*LABS, **training)
    coordinator = site.coordinator("--wait", "60 s")
    labs = [site.lab(lab) for lab in LABS]
    assert coordinator.exit_code() == 0, coordinator.text()
    assert [lab.exit_code() for lab in labs] == [0, 0, 0]
    expected = in_process(site, site.folder / "federation.toml")
    model = site.model()
    for name, array in expected.head.items():
        np.testing.assert_array_equal(model.head[name], array)
    np.testing.assert_array_equal(
        model.standardiser.feature_mean, expected.standardiser.feature_mean
    )
    agreed = training.get("cross_evaluation", False)
    assert list(expected.crossed) == (list(LABS) if agreed else [])
    told = site.result()["cross_errors"]
    assert {
        own: {other: list(errors.values()) for other, errors in at_labs.items()}
        for own, at_labs in told.items()
    } == {
        own: {other: errors.tolist() for other, errors in at_labs.items()}
        for own, at_labs in expected.crossed.items()
    }
    released = read_sealed(site.server / "run" / "model")
    assert {"card.md", "intervals.safetensors", "novelty.safetensors"} <= set(released)
    for lab in LABS:
        assert read_sealed(site.state(lab) / "model") == released
    folder, celle = site.state("celle") / "model", site.folder / "data-celle" / "images"
    told = json.loads(site.do("lab", "predict", folder, celle, "--json").stdout)
    assert len(told["predictions"]) == 48 and told["intervals_of"] == "this lab"
    # each lab reads of its own specimens, the coordinator of none
    page = site.server / "run" / "report.html"
    assert "S01" not in page.read_text()
    assert ("mean absolute error of each model at each lab" in page.read_text()) is agreed
    assert all((site.state(lab) / "report.html").is_file() for lab in LABS)
    assert "What a new lab would get" in page.read_text()
    assert "What each lab adds to the others" not in page.read_text()
    page.unlink()
    assert site.do("server", "report", "--state", site.server, "--contributions").exit_code == 0
    assert "What each lab adds to the others" in page.read_text()
