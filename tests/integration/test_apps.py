"""The two Flower apps as Flower runs them: found by name, told by configuration alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from flwr.app import ConfigRecord, Context, Message, RecordDict

import client.app
import server.app
from common.counts import bucketed
from common.federation import load_federation
from common.messages import HANDSHAKE, HEAD, HandshakeReply, Terms, message_to
from simulation.grid import InProcessGrid

STRANGER = Terms(fingerprint="0" * 64, version="0.0.1").to_record()


@pytest.fixture
def folders(
    make_lab: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Two labs' folders, and the agreement beside them."""
    monkeypatch.setenv("CROSSPLY_CACHE", str(tmp_path / "cache"))
    labs = [make_lab("north"), make_lab("south")]
    agreement = labs[0].federation | {
        "backbone": {"name": "efficientnet_lite0"},
        "training": {"rounds": 2},
        "privacy": {"min_specimens": 4},
    }
    (tmp_path / "federation.toml").write_text(tomli_w.dumps(agreement))
    return {lab.path.name: str(lab.path) for lab in labs}


def test_a_run_of_the_two_apps(folders: dict[str, str], tmp_path: Path) -> None:
    agreement = str(tmp_path / "federation.toml")
    grid = InProcessGrid(
        client.app.app,
        {name: {"lab": folder, "federation": agreement} for name, folder in folders.items()},
    )
    context = Context(1, 1, {}, RecordDict(), {"federation": agreement})
    server.app.app(grid, context)
    run = context.state["run"]
    assert isinstance(run, ConfigRecord)
    assert run["labs"] == ["north", "south"]
    assert context.state.array_records[HEAD]["0.weight"].shape == (64, 2560)


def replies(node_config: Any, record: RecordDict) -> Message:
    grid = InProcessGrid(client.app.app, {"lab": node_config})
    (reply,) = grid.send_and_receive([message_to(2, HANDSHAKE, record)])
    return reply


@pytest.mark.parametrize(
    ("node_config", "code"),
    [
        ({}, "configuration"),
        ({"lab": "/there/is/no/such/folder"}, "configuration"),
        ({"lab": "/there/is/no/such/folder", "name_in_card": "yes"}, "configuration"),
    ],
)
def test_a_lab_that_cannot_be_opened_sends_a_code_and_no_text(
    node_config: dict[str, Any], code: str
) -> None:
    reply = replies(node_config, STRANGER)
    assert reply.has_error()
    assert reply.error.reason == code


def test_on_flowers_engine_a_lab_is_named_where_its_node_says_so(
    folders: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "federation.toml"
    record = Terms.of(load_federation(path)).to_record()
    for extra, named in (({}, False), ({"name_in_card": True}, True)):
        config = {"lab": folders["north"], "federation": str(path)} | extra
        hello = HandshakeReply.from_record(replies(config, record).content)
        assert (hello.lab, hello.name_in_card) == ("north", named)
        stranger = HandshakeReply.from_record(replies(config, STRANGER).content)
        assert stranger.name_in_card is False


def test_a_refused_folder_sends_a_code_and_no_text(folders: dict[str, str], tmp_path: Path) -> None:
    table = Path(folders["north"]) / "tests.csv"
    table.write_text(table.read_text().replace("S05,", "S05,x"))
    config = {"lab": folders["north"], "federation": str(tmp_path / "federation.toml")}
    reply = replies(config, STRANGER)
    assert reply.error.reason == "lab-data"


@pytest.mark.parametrize("count", [1, 7, 19, 20, 99, 123, 4999, 100_000])
def test_a_bucket_is_at_most_the_count_and_more_than_two_fifths_of_it(count: int) -> None:
    assert 0.4 * count < bucketed(count) <= count
