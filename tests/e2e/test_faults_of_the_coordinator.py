"""FAULTS §1: a coordinator that dies, is full, is started twice. The numbers are its table's."""

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from server.checkpoint import Checkpoints

LABS = ("aachen", "bremen", "celle")

SLOW = """
import time, client.app
fast = client.app.train_head
def train_head(*arguments):
    time.sleep({seconds})
    return fast(*arguments)
client.app.train_head = train_head
"""


def undisturbed(site: Any) -> bytes:
    """Run the federation in another state folder's run, to its end, and return the model."""
    coordinator = site.coordinator()
    labs = [site.lab(lab) for lab in LABS]
    assert coordinator.exit_code() == 0, coordinator.text()
    assert [lab.exit_code() for lab in labs] == [0, 0, 0]
    model: bytes = site.model_bytes()
    (site.server / "run").rename(site.folder / "undisturbed")
    return model


@pytest.mark.parametrize("strategy", ["fedavgm", "fedadam"])
def test_fault_10_and_law_5_killed_at_random_points_and_resumed_to_the_same_bits(
    site: Any, until: Any, strategy: str
) -> None:
    site.joined(*LABS, rounds=60, quorum=1.0, strategy=strategy, round_deadline="60 s")
    expected = undisturbed(site)
    chance = random.Random(strategy)
    slow = SLOW.format(seconds=0.02)
    labs = {lab: site.lab(lab, before=slow) for lab in LABS}
    for _ in range(10):
        coordinator = site.coordinator("--grace", "60 s")
        until(lambda c=coordinator: "round counted" in c.text() or c.ended(), "it goes on")
        time.sleep(chance.uniform(0.0, 0.15))
        coordinator.kill()
        if chance.random() < 0.3:
            name = chance.choice(LABS)
            labs[name].kill()
            labs[name] = site.lab(name, before=slow)
    coordinator = site.coordinator("--grace", "60 s")
    assert coordinator.exit_code() == 0, coordinator.text()
    assert [lab.exit_code() for lab in labs.values()] == [0, 0, 0]
    assert site.model_bytes() == expected
    numbers = [record["server_round"] for record in site.result()["rounds"]]
    assert numbers == list(range(1, 61))


def test_fault_12_a_finished_run_is_not_trained_again(site: Any) -> None:
    site.joined("aachen", rounds=2)
    coordinator = site.coordinator()
    site.lab("aachen")
    assert coordinator.exit_code() == 0, coordinator.text()
    before = site.model_bytes()
    again = site.start("server", "start", "--state", site.server)
    assert again.exit_code() == 0
    assert "has finished before; nothing is trained" in again.text()
    assert site.model_bytes() == before


def test_fault_13_two_coordinators_on_one_folder(site: Any) -> None:
    site.agree()
    first = site.coordinator()
    second = site.start("server", "start", "--state", site.server)
    assert second.exit_code() == 1
    assert "another coordinator runs on" in second.text()
    assert not first.ended()


def test_a_port_in_use_is_named(site: Any) -> None:
    site.agree()
    site.coordinator()
    other = site.folder / "other"
    agreement = site.folder / "federation.toml"
    site.do("server", "init", agreement, "--address", site.address, "--state", other)
    second = site.start("server", "start", "--state", other)
    assert second.exit_code() == 1
    assert f"cannot listen on 127.0.0.1:{site.port}" in second.text()


def test_fault_14_no_room_for_a_checkpoint_ends_the_run_and_keeps_what_was_there(
    site: Any,
) -> None:
    full = """
import resource, server.checkpoint
save = server.checkpoint.Checkpoints.save
def limited(self, progress):
    if progress.state.server_round == 3:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    save(self, progress)
server.checkpoint.Checkpoints.save = limited
"""
    site.joined("aachen", rounds=5)
    coordinator = site.coordinator(before=full)
    lab = site.lab("aachen")
    assert coordinator.exit_code() == 1
    assert "cannot be written" in coordinator.text() and "make room" in coordinator.text()
    fingerprint = json.loads((site.server / "server.json").read_text())["fingerprint"]
    progress = Checkpoints(site.server / "run", fingerprint).load()
    assert progress is not None and progress.state.server_round == 2
    coordinator = site.coordinator()
    assert coordinator.exit_code() == 0, coordinator.text()
    assert lab.exit_code() == 0


def test_fault_14_a_lab_that_cannot_write_its_log_sends_nothing(site: Any) -> None:
    full = """
import resource, client.sent_log
append = client.sent_log.SentLog.append
def limited(self, message_type, reply):
    if message_type == "train":
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    append(self, message_type, reply)
client.sent_log.SentLog.append = limited
"""
    site.joined("aachen", "bremen", rounds=2, quorum=0.5)
    coordinator = site.coordinator()
    site.lab("aachen"), site.lab("bremen", before=full)
    assert coordinator.exit_code() == 0, coordinator.text()
    failed = [record["failed"] for record in site.result()["rounds"]]
    assert failed == [{"bremen": "policy"}] * 2
    site.do("lab", "log", "--verify", "--state", site.state("bremen"))


def test_fault_15_an_altered_checkpoint_is_found_and_the_one_before_it_used(site: Any) -> None:
    site.joined("aachen", rounds=4)
    coordinator = site.coordinator()
    site.lab("aachen")
    assert coordinator.exit_code() == 0, coordinator.text()
    expected = site.model_bytes()
    *_, newest = sorted((site.server / "run").glob("*.checkpoint"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(bytes(content))
    coordinator = site.coordinator()
    site.lab("aachen")
    assert coordinator.exit_code() == 0, coordinator.text()
    assert "was cut or altered, and is set aside" in coordinator.text()
    assert site.model_bytes() == expected


def test_fault_25_a_coordinator_told_to_stop_ends_in_order_and_goes_on_later(
    site: Any, until: Any
) -> None:
    site.joined("aachen", rounds=30)
    coordinator = site.coordinator()
    lab = site.lab("aachen", before=SLOW.format(seconds=0.05))
    until(lambda: "round=3" in coordinator.text(), "round 3")
    coordinator.send(signal.SIGTERM)
    assert coordinator.exit_code(timeout=10) == 0
    status = site.status()
    assert not status["running"] and status["round"] >= 3
    coordinator = site.coordinator("--log-json")
    assert coordinator.exit_code() == 0, coordinator.text()
    assert lab.exit_code() == 0
    lines = [json.loads(line) for line in coordinator.text().splitlines()[:-1]]
    assert {"time", "level", "logger", "message"} <= set(lines[0])
    counted = [line for line in lines if line["message"] == "round counted"]
    assert counted[-1]["round"] == 30


def test_an_edited_agreement_stops_both_sides(site: Any) -> None:
    site.joined("aachen")
    for folder, words in ((site.server, "the labs agreed to"), (site.state("aachen"), "accepted")):
        path: Path = folder / "federation.toml"
        path.write_text(path.read_text().replace("rounds = 3", "rounds = 4"))
        side = "server" if folder == site.server else "lab"
        edited = site.start(side, "start", "--state", folder)
        assert edited.exit_code() == 1
        assert "has been edited" in edited.text() and words in edited.text()
