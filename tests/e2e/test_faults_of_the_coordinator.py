"""FAULTS §1: a coordinator that dies, is full, is started twice. The numbers are its table's."""

import json
import random
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks.loopback import Consortium, Running, slow_training, until
from common.round_log import FILE_NAME, TIMES
from server.checkpoint import Checkpoints

LABS = ("aachen", "bremen", "celle")


def undisturbed(site: Consortium) -> bytes:
    """Run the federation in another state folder's run, to its end, and return the model."""
    coordinator = site.coordinator()
    labs = [site.lab(lab) for lab in LABS]
    assert coordinator.exit_code() == 0, coordinator.text()
    assert [lab.exit_code() for lab in labs] == [0, 0, 0]
    model: bytes = site.model_bytes()
    (site.server / "run").rename(site.folder / "undisturbed")
    return model


@pytest.mark.parametrize(("strategy", "num_kills"), [("fedadam", 20), ("fedavgm", 5)])
def test_fault_10_and_law_5_killed_at_random_points_and_resumed_to_the_same_bits(
    site: Consortium, strategy: str, num_kills: int
) -> None:
    site.joined(*LABS, rounds=100, quorum=1.0, strategy=strategy, round_deadline="60 s")
    expected = undisturbed(site)
    chance = random.Random(strategy)
    slow = slow_training(0.02)
    labs = {lab: site.lab(lab, before=slow) for lab in LABS}
    for kill in range(num_kills):
        coordinator = site.coordinator("--grace", "60 s")
        if kill % 2:
            # while it waits for labs, shakes hands, sums up, or is in its first round
            time.sleep(chance.uniform(0.0, 1.0))
        else:
            awaited = partial(has_said, coordinator, "round counted")
            until(awaited, "it goes on")
            time.sleep(chance.uniform(0.0, 0.15))
        assert not coordinator.ended(), coordinator.text()
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
    assert numbers == list(range(1, 101))
    assert but_for_times(site.server / "run") == but_for_times(site.folder / "undisturbed")


def but_for_times(folder: Path) -> list[dict[str, Any]]:
    text = (folder / FILE_NAME).read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["server_round"] for line in lines] == list(range(1, 101))
    return [{key: line[key] for key in line if key not in TIMES} for line in lines]


def has_said(running: Running, words: str) -> bool:
    return words in running.text() or running.ended()


DIES = """
import os, signal, {module}
of, name = {owner}, "{name}"
real = getattr(of, name)
def dying(*arguments, **options):
    if {after}:
        real(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(of, name, dying)
"""


@pytest.mark.parametrize(
    ("owner", "name", "after"),
    [
        ("server.phases.Coordinator", "shake_hands", True),
        ("server.phases.Coordinator", "gather_statistics", True),
        ("server.phases.Coordinator", "find_projection", True),
        ("server.phases.Coordinator", "evaluate", False),
        ("server.phases.Coordinator", "cross_evaluate", True),
        ("server.service", "write_result", False),
        ("server.phases.Coordinator", "release", False),
        ("server.phases.Coordinator", "release", True),
        ("server.service", "_say_farewell", False),
    ],
)
def test_fault_10_killed_in_each_phase(
    site: Consortium, owner: str, name: str, after: bool
) -> None:
    site.joined("aachen", "bremen", rounds=3, quorum=1.0, projection="pca", cross_evaluation=True)
    module = ".".join(owner.split(".")[:2])
    dies = DIES.format(module=module, owner=owner, name=name, after=after)
    coordinator = site.coordinator("--grace", "20 s", before=dies)
    labs = [site.lab(lab) for lab in ("aachen", "bremen")]
    assert coordinator.exit_code() == -signal.SIGKILL
    coordinator = site.coordinator("--grace", "20 s")
    assert coordinator.exit_code() == 0, coordinator.text()
    # each has the model, also where the coordinator fell just before the farewell
    assert [lab.exit_code() for lab in labs] == [0, 0]
    result = site.result()
    assert [record["server_round"] for record in result["rounds"]] == [1, 2, 3]
    assert result["have_the_model"] == ["aachen", "bremen"]
    assert list(result["cross_errors"]) == ["aachen", "bremen"]
    for lab in ("aachen", "bremen"):
        kept = (site.state(lab) / "model" / "model.safetensors").read_bytes()
        assert kept == site.model_bytes()


def test_a_lab_that_was_away_at_the_end_gets_the_model_later(site: Consortium) -> None:
    site.joined("aachen", "bremen", rounds=2, quorum=0.5)
    away = DIES.format(
        module="client.keeping", owner="client.keeping.Release", name="write", after=False
    )
    coordinator = site.coordinator("--grace", "0.3 s")
    labs = [site.lab("aachen"), site.lab("bremen", before=away)]
    assert coordinator.exit_code() == 0, coordinator.text()
    assert labs[0].exit_code() == 0
    assert "bremen: without the model" in coordinator.text()
    assert site.result()["have_the_model"] == ["aachen"]
    why = {row["lab"]: row["why"] for row in site.status()["labs"]}
    assert why["aachen"] == "" and "has not got the model yet" in why["bremen"]
    again = site.coordinator("--grace", "20 s")
    late = site.lab("bremen")
    assert again.exit_code() == 0, again.text()
    assert late.exit_code() == 0
    assert "nothing is trained" in again.text() and "the model waits for bremen" in again.text()
    assert site.result()["have_the_model"] == ["aachen", "bremen"]
    assert {row["why"] for row in site.status()["labs"]} == {""}


def test_nobody_waits_for_a_lab_that_judges_and_what_was_cut_off_is_judged_later(
    site: Consortium,
) -> None:
    site.joined("aachen", "bremen", rounds=2)
    killed = DIES.format(module="client.keeping", owner="client.keeping", name="judge", after=False)
    coordinator = site.coordinator()
    labs = [site.lab("aachen"), site.lab("bremen", before=killed)]
    assert coordinator.exit_code() == 0, coordinator.text()
    assert site.result()["have_the_model"] == ["aachen", "bremen"]
    assert labs[0].exit_code() == 0 and "aachen/report.html" in labs[0].text()
    until(labs[1].ended, "bremen is killed")
    report = site.state("bremen") / "report.html"
    assert not report.exists()
    again = site.lab("bremen", "--patience", "1 s")
    assert again.exit_code() == 0, again.text()
    assert report.exists() and f"stands in {report}" in again.text()


def test_a_lab_revoked_while_the_coordinator_is_away_costs_no_run(site: Consortium) -> None:
    site.joined(*LABS, rounds=40, quorum=0.6)
    coordinator = site.coordinator()
    labs = [site.lab(lab, before=slow_training(0.05)) for lab in LABS]
    until(lambda: "round=3" in coordinator.text(), "round 3")
    coordinator.kill()
    site.do("server", "revoke", "celle", "--state", site.server)
    coordinator = site.coordinator()
    assert coordinator.exit_code() == 0, coordinator.text()
    assert [lab.exit_code() for lab in labs] == [0, 0, 1]
    assert "celle was revoked on" in labs[2].text()
    assert site.result()["excluded"] == {"celle": "revoked"}
    assert site.result()["rounds"][-1]["labs"] == ["aachen", "bremen"]


def test_fault_12_a_finished_run_is_not_trained_again(site: Consortium) -> None:
    site.joined("aachen", rounds=2)
    coordinator = site.coordinator()
    site.lab("aachen")
    assert coordinator.exit_code() == 0, coordinator.text()
    before = site.model_bytes()
    again = site.start("server", "start", "--state", site.server)
    assert again.exit_code() == 0
    assert "has finished before; nothing is trained" in again.text()
    assert site.model_bytes() == before


def test_fault_13_two_coordinators_on_one_folder(site: Consortium) -> None:
    site.agree()
    first = site.coordinator()
    second = site.start("server", "start", "--state", site.server)
    assert second.exit_code() == 1
    assert "another coordinator runs on" in second.text()
    assert not first.ended()


def test_a_port_in_use_is_named(site: Consortium) -> None:
    site.agree()
    site.coordinator()
    other = site.folder / "other"
    agreement = site.folder / "federation.toml"
    site.do("server", "init", agreement, "--address", site.address, "--state", other)
    second = site.start("server", "start", "--state", other)
    assert second.exit_code() == 1
    assert f"cannot listen on 127.0.0.1:{site.port}" in second.text()
    assert f"and forward localhost:{site.port} to it" in second.text()


def test_fault_14_no_room_for_a_checkpoint_ends_the_run_and_keeps_what_was_there(
    site: Consortium,
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


def test_fault_14_no_room_for_a_status_hides_no_other_end(site: Consortium) -> None:
    full = """
import server.status
def write(self):
    raise OSError(28, "No space left on device")
server.status.Status.write = write
"""
    site.joined("aachen", rounds=500)
    coordinator = site.coordinator(before=full)
    site.lab("aachen")
    until(lambda: "round=2" in coordinator.text(), "round 2")
    coordinator.send(signal.SIGTERM)
    assert coordinator.exit_code(timeout=10) == 0, coordinator.text()
    assert "the status cannot be kept up" in coordinator.text()


def test_fault_14_a_lab_that_cannot_write_its_log_sends_nothing(site: Consortium) -> None:
    full = """
import resource, client.sent_log
append = client.sent_log.SentLog.append
def limited(self, message_type, reply, asked):
    if message_type == "train":
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    append(self, message_type, reply, asked)
client.sent_log.SentLog.append = limited
"""
    site.joined("aachen", "bremen", rounds=2, quorum=0.5)
    coordinator = site.coordinator()
    site.lab("aachen"), site.lab("bremen", before=full)
    assert coordinator.exit_code() == 0, coordinator.text()
    failed = [record["failed"] for record in site.result()["rounds"]]
    assert failed == [{"bremen": "policy"}] * 2
    site.do("lab", "log", "--verify", "--state", site.state("bremen"))


def test_fault_15_an_altered_checkpoint_is_found_and_the_one_before_it_used(
    site: Consortium,
) -> None:
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
    site: Consortium,
) -> None:
    site.joined("aachen", rounds=30)
    coordinator = site.coordinator()
    lab = site.lab("aachen", before=slow_training(0.05))
    until(lambda: "round=3" in coordinator.text(), "round 3")
    coordinator.send(signal.SIGTERM)
    assert coordinator.exit_code(timeout=10) == 0
    status = site.status()
    assert not status["running"] and status["round"] >= 3
    assert [row["round"] for row in status["labs"]] == [status["round"]]
    coordinator = site.coordinator("--log-json")
    assert coordinator.exit_code() == 0, coordinator.text()
    assert lab.exit_code() == 0
    lines = [json.loads(line) for line in coordinator.text().splitlines()[:-1]]
    assert {"time", "level", "logger", "message"} <= set(lines[0])
    counted = [line for line in lines if line["message"] == "round counted"]
    assert counted[-1]["round"] == 30


def test_an_edited_agreement_stops_both_sides(site: Consortium) -> None:
    site.joined("aachen")
    for folder, words in ((site.server, "the labs agreed to"), (site.state("aachen"), "accepted")):
        path: Path = folder / "federation.toml"
        path.write_text(path.read_text().replace("rounds = 3", "rounds = 4"))
        side = "server" if folder == site.server else "lab"
        edited = site.start(side, "start", "--state", folder)
        assert edited.exit_code() == 1
        assert "has been edited" in edited.text() and words in edited.text()
