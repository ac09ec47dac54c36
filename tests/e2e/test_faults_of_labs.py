"""FAULTS §1: labs that die, are slow, lie, or are away. The numbers are those of its table."""

import json
import signal
import time
from typing import Any

import pytest

from benchmarks.invariants import check_replay
from benchmarks.loopback import Consortium, slow_training, until

LABS = ("aachen", "bremen", "celle")
TWO_OF_THREE = {"quorum": 0.6, "round_deadline": "20 s"}


def rounds_of(site: Consortium) -> list[dict[str, Any]]:
    rounds: list[dict[str, Any]] = site.result()["rounds"]
    return rounds


def test_faults_1_and_3_a_lab_killed_is_waited_for_briefly_and_rejoins(site: Consortium) -> None:
    site.joined(*LABS, rounds=40, **TWO_OF_THREE)
    coordinator = site.coordinator("--grace", "1 s")
    slow = slow_training(0.1)
    labs = {lab: site.lab(lab, before=slow) for lab in LABS}
    until(lambda: "round=3" in coordinator.text(), "round 3")
    labs["celle"].kill()
    until(lambda: "gone lab=celle" in coordinator.text(), "the coordinator notices", timeout=2)
    until(lambda: "'celle': 'not connected'" in coordinator.text(), "rounds without celle")
    again = site.lab("celle", before=slow)
    assert coordinator.exit_code() == 0, coordinator.text()
    assert again.exit_code() == 0
    said = coordinator.text()
    assert "a lab has come lab=celle" in said and "a lab has come back lab=celle" in said
    assert "come back lab=aachen" not in said
    rounds = rounds_of(site)
    assert [record["server_round"] for record in rounds] == list(range(1, 41))
    missing = [record["server_round"] for record in rounds if "celle" in record["failed"]]
    assert missing and rounds[-1]["labs"] == list(LABS)
    # back within seconds, and in from then on
    assert missing == list(range(missing[0], missing[-1] + 1))
    assert site.result()["labs"] == list(LABS)
    # I2: the release follows from its record to the bit, and from no other record
    assert check_replay(site) == []
    path = site.server / "run" / "result.json"
    record = site.result()
    record["rounds"][0]["labs"].remove("celle")
    path.write_text(json.dumps(record))
    assert check_replay(site) == ["I2: computed again, the head has other bits"]


def test_fault_2_a_lab_killed_during_its_upload_changes_nothing(site: Consortium) -> None:
    proxy = site.through_a_proxy()
    site.joined(*LABS, rounds=2, **TWO_OF_THREE)
    coordinator = site.coordinator("--grace", "1 s")
    honest = [site.lab(lab, before="") for lab in LABS[:2]]
    until(lambda: all("connected" in lab.text() for lab in honest), "two labs are there")
    # from here on only celle's bytes are counted and slowed
    proxy.bytes_up, proxy.pause_s = 0, 0.05
    dying = site.lab("celle")
    # the three labs' statistics are 60 kB each, at 80 kB a second: in the middle of an upload
    until(lambda: proxy.bytes_up > 40_000, "an upload is under way")
    dying.kill()
    proxy.pause_s = 0.0
    assert coordinator.exit_code() == 0, coordinator.text()
    assert [lab.exit_code() for lab in honest] == [0, 0]
    assert all("celle" not in record["labs"] for record in rounds_of(site))
    assert len(rounds_of(site)) == 2


@pytest.mark.parametrize(
    ("death", "code", "text"),
    [
        ("numpy.ones(2**48)", "internal", "Unable to allocate"),
        ("import specimens_of_anna", "internal", "No module named 'specimens_of_anna'"),
        ("os.kill(os.getpid(), 11)", "not connected", ""),
    ],
)
def test_fault_4_a_lab_out_of_memory_or_crashing_costs_itself_alone(
    site: Consortium, death: str, code: str, text: str
) -> None:
    dies = f"""
import numpy, os, client.app
def train_head(*arguments):
    {death}
client.app.train_head = train_head
"""
    site.joined(*LABS, rounds=3, **TWO_OF_THREE)
    coordinator = site.coordinator("--grace", "0.5 s")
    labs = [site.lab(lab, before=dies if lab == "celle" else "") for lab in LABS]
    assert coordinator.exit_code() == 0, coordinator.text()
    assert [record["failed"] for record in rounds_of(site)] == [{"celle": code}] * 3
    assert labs[2].exit_code() == (-signal.SIGSEGV if code == "not connected" else 0)
    # the text stays in the lab's own log
    assert text in labs[2].text()
    assert not text or text not in coordinator.text()


def test_a_lab_whose_code_cannot_be_imported_tells_nobody(site: Consortium) -> None:
    """Before a lab has connected there is nothing that its text could leave by."""
    site.joined(*LABS, rounds=2, **TWO_OF_THREE)
    coordinator = site.coordinator("--wait", "6 s")
    broken = "import sys; sys.modules['client.service'] = None"
    labs = [site.lab(lab) for lab in LABS[:2]] + [site.lab("celle", before=broken)]
    assert labs[2].exit_code() == 1
    assert "import of client.service halted" in labs[2].text()
    assert coordinator.exit_code() == 0, coordinator.text()
    assert site.result()["excluded"] == {"celle": "not there when the run began"}
    assert "Error" not in coordinator.text()


def test_fault_5_a_lab_slower_than_the_deadline_is_left_out_and_its_late_reply_dropped(
    site: Consortium,
) -> None:
    site.joined(*LABS, rounds=2, quorum=0.6, round_deadline="3 s")
    coordinator = site.coordinator()
    labs = [site.lab(lab, before=slow_training(4.5) if lab == "celle" else "") for lab in LABS]
    assert coordinator.exit_code() == 0, coordinator.text()
    assert [lab.exit_code() for lab in labs] == [0, 0, 0]
    assert [record["failed"] for record in rounds_of(site)] == [{"celle": "no reply in time"}] * 2
    assert [record["labs"] for record in rounds_of(site)] == [["aachen", "bremen"]] * 2
    assert "a late or repeated reply is dropped lab=celle" in coordinator.text()


def test_fault_6_a_lab_that_was_stopped_rejoins(site: Consortium) -> None:
    site.joined(*LABS, rounds=25, quorum=0.6, round_deadline="2 s")
    coordinator = site.coordinator()
    labs = [site.lab(lab, before=slow_training(0.2)) for lab in LABS]
    until(lambda: "round=2" in coordinator.text(), "round 2")
    labs[2].send(signal.SIGSTOP)
    until(lambda: coordinator.text().count("'celle': 'no reply in time'") > 1, "rounds without it")
    labs[2].send(signal.SIGCONT)
    assert coordinator.exit_code() == 0, coordinator.text()
    assert labs[2].exit_code() == 0
    assert rounds_of(site)[-1]["labs"] == list(LABS)


def test_fault_7_below_the_quorum_the_run_pauses_and_goes_on(site: Consortium) -> None:
    site.joined(*LABS, rounds=20, quorum=0.6, round_deadline="20 s")
    coordinator = site.coordinator("--grace", "0.3 s", "--wait", "60 s")
    slow = slow_training(0.1)
    labs = [site.lab(lab, before=slow) for lab in LABS]
    until(lambda: "round=2" in coordinator.text(), "round 2")
    for lab in labs[1:]:
        lab.kill()
    coordinator.says("the run waits")
    status = until(lambda: site.status()["waits_for"], "the status says for whom")
    assert "bremen (not connected)" in status and "celle (not connected)" in status
    site.lab("bremen", before=slow)
    assert coordinator.exit_code() == 0, coordinator.text()
    rounds = rounds_of(site)
    assert [record["server_round"] for record in rounds] == list(range(1, 21))
    assert rounds[-1]["labs"] == ["aachen", "bremen"]


def test_fault_7_it_gives_up_at_the_limit_and_releases_nothing(site: Consortium) -> None:
    site.joined(*LABS, rounds=500, quorum=1.0, round_deadline="20 s")
    labs = [site.lab(lab) for lab in LABS]
    until(lambda: all("ready" in lab.text() for lab in labs), "the labs have read their data")
    coordinator = site.coordinator("--grace", "0.3 s", "--wait", "8 s")
    until(lambda: "round=2" in coordinator.text() or coordinator.ended(), "round 2")
    labs[1].kill()
    assert coordinator.exit_code() == 1
    last = coordinator.text().strip().splitlines()[-1]
    assert "2 of 3 labs took part and the quorum is 3; missing: bremen (not connected)" in last
    assert not (site.server / "run" / "model").exists()


def test_fault_8_labs_that_never_come_are_named(site: Consortium) -> None:
    site.joined(*LABS)
    site.invite("dresden")
    coordinator = site.coordinator("--wait", "3 s")
    site.lab("aachen")
    assert coordinator.exit_code() == 1
    last = coordinator.text().strip().splitlines()[-1]
    assert (
        "of 4 labs came within 3 s and the quorum is 4; missing: bremen; celle; dresden (invited"
        in last
    )


def test_a_lab_that_was_invited_and_never_joined_is_named_in_the_result(site: Consortium) -> None:
    site.joined("aachen", "bremen", rounds=2, quorum=0.6)
    site.invite("celle")
    labs = [site.lab(lab) for lab in ("aachen", "bremen")]
    coordinator = site.coordinator("--wait", "5 s")
    assert coordinator.exit_code() == 0, coordinator.text()
    assert [lab.exit_code() for lab in labs] == [0, 0]
    why = "invited, and had not joined when the run began"
    assert site.result()["excluded"] == {"celle": why}
    assert [record["out"] for record in site.result()["rounds"]] == [["celle"]] * 2


def test_fault_24_a_connection_that_is_cut_for_half_a_minute(site: Consortium) -> None:
    proxy = site.through_a_proxy()
    site.joined(*LABS, rounds=30, quorum=1.0, round_deadline="2 min")
    coordinator = site.coordinator("--grace", "1 min")
    labs = [site.lab(lab, before=slow_training(0.05)) for lab in LABS]
    until(lambda: "round=3" in coordinator.text(), "round 3")
    proxy.cut.set()
    proxy.break_all()
    time.sleep(30)
    proxy.cut.clear()
    assert coordinator.exit_code() == 0, coordinator.text()
    assert [lab.exit_code() for lab in labs] == [0, 0, 0]
    assert all(record["labs"] == list(LABS) for record in rounds_of(site))


def test_fault_25_a_lab_told_to_stop_ends_in_order(site: Consortium) -> None:
    site.joined("aachen", rounds=500)
    coordinator = site.coordinator()
    lab = site.lab("aachen", before=slow_training(0.05))
    until(lambda: "round=2" in coordinator.text(), "round 2")
    lab.send(signal.SIGTERM)
    assert lab.exit_code(timeout=10) == 0
    assert "takes part again" in lab.text()
    verified = site.do("lab", "log", "--verify", "--state", site.state("aachen"))
    assert "unbroken" in verified.output


def test_fault_26_a_clock_that_is_ten_minutes_off(site: Consortium) -> None:
    late = "import time; real = time.time; time.time = lambda: real() + 600"
    site.joined("aachen", rounds=2)
    coordinator = site.coordinator()
    state = site.state("aachen")
    doctor = site.start("lab", "doctor", "--json", "--state", state, before=late)
    assert doctor.exit_code() == 0
    assert "this computer's clock is 600 s ahead of the coordinator's" in doctor.text()
    lab = site.lab("aachen", before=late)
    assert coordinator.exit_code() == 0, coordinator.text()
    assert lab.exit_code() == 0
