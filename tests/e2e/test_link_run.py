"""A run over the link: processes, certificates, and the bits of the run in one process."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.loopback import Consortium, slow_training, until
from client.app import client_app
from client.opening import open_lab
from common.federation import load_federation
from common.sealed import read_sealed
from server.release import release_of
from server.rounds import run_federation
from simulation.grid import InProcessGrid

LABS = ("aachen", "bremen", "celle")


def in_process(site: Consortium, agreement: Path, unnamed: str = "") -> Any:
    federation = load_federation(agreement)
    labs = {
        lab: replace(
            open_lab(site.folder / f"data-{lab}", federation, lab), name_in_card=lab != unnamed
        )
        for lab in LABS
    }
    app = client_app(lambda context: labs[str(context.node_config["lab"])])
    return run_federation(InProcessGrid(app, {lab: {"lab": lab} for lab in labs}), federation)


def of_labs(card: str) -> str:
    """Return what a card says of single labs; sums of errors leave a real lab rounded."""
    return card.split("## Labs")[1].split("##")[0]


def test_a_lab_that_does_not_want_to_be_named_is_in_no_byte_that_others_get(
    site: Consortium,
) -> None:
    site.joined(*LABS, rounds=4)
    policy = site.state("bremen") / "policy.toml"
    policy.write_text(policy.read_text().replace("name_in_card = true", "name_in_card = false"))
    labs = [site.lab(lab, before=slow_training(0.1)) for lab in LABS]
    killed = site.coordinator("--wait", "60 s")
    until(lambda: "round counted" in killed.text() or killed.ended(), "a round")
    assert not killed.ended(), killed.text()
    killed.kill()
    coordinator = site.coordinator("--wait", "60 s", "--grace", "60 s")
    assert coordinator.exit_code() == 0, coordinator.text()
    assert [lab.exit_code() for lab in labs] == [0, 0, 0]
    released = read_sealed(site.server / "run" / "model")
    card = released["card.md"].decode()
    assert [name in card for name in (*LABS, "unnamed lab 1")] == [True, False, True, True]
    for lab in LABS:
        whole = [path for path in site.state(lab).rglob("*") if path.is_file()]
        kept = [path for path in whole if path.parent.name == "model"]
        assert not [path for path in kept if b"bremen" in path.read_bytes()]
        assert {path.name for path in kept} > set(released)
        if lab != "bremen":
            # what it was sent, what it made of that, and what it said
            assert not [path for path in whole if b"bremen" in path.read_bytes()]
            assert "bremen" not in labs[LABS.index(lab)].text()
        assert "unnamed lab 1" in (site.state(lab) / "report.html").read_text()
    assert site.result()["named_in_card"] == ["aachen", "celle"]
    # the coordinator knows all of them, and the bits are those of a run that nobody stopped
    assert "bremen" in (site.server / "run" / "report.html").read_text()
    federation = load_federation(site.folder / "federation.toml")
    expected = release_of(federation, in_process(site, site.folder / "federation.toml", "bremen"))
    assert expected.files["model.safetensors"] == released["model.safetensors"]
    assert of_labs(expected.files["card.md"].decode()) == of_labs(card)


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
