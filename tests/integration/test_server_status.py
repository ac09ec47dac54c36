"""``crossply server status``: how labs stand, with a coordinator that runs and without one."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from common.errors import QuorumError
from common.link_pb2 import Farewell, Reply, Task
from server.exchange import Exchange
from server.register import Invited, Register
from server.state_folder import Coordination, create_coordination
from server.status import Status
from server.status_table import print_status, read_status
from server.waiting import wait_for_all

FEDERATION = {
    "name": "cfrp",
    "targets": {"strength": {"unit": "MPa", "range": [0, 3000]}},
    "imaging": {"scale": "fit"},
    "backbone": {"name": "resnet18"},
}


class Silent:
    """A lab that is connected and answers when the test says so."""

    def send(self, task: Task) -> None:
        self.task = task

    def close(self, farewell: Farewell) -> None:
        self.farewell = farewell


@pytest.fixture
def state(tmp_path: Path) -> Coordination:
    path = tmp_path / "federation.toml"
    path.write_text(tomli_w.dumps(FEDERATION))
    return create_coordination(path, "localhost:9443", tmp_path / "server")


def invite(register: Register, lab: str) -> None:
    expires = datetime.now(UTC) + timedelta(days=1)
    digest = hashlib.sha256(lab.encode()).hexdigest()
    register.add_invite(Invited(id=lab, name=lab, token_sha256=digest, expires=expires))


def enrol(register: Register, *labs: str) -> None:
    for number, lab in enumerate(labs):
        invite(register, lab)
        register.enrol(lab, lab, "key", lambda _, serial=number: (serial, b""))  # type: ignore[misc]


def status_of(state: Coordination, exchange: Exchange, phase: str, *without: str) -> Status:
    """Return the status of a run of all enrolled labs, of which some are without the model."""
    register = Register(state.folder)
    found = Status(
        state=state,
        federation=state.federation(),
        exchange=exchange,
        register=register,
        phase=phase,
        without_model=without,
    )
    found.roster.names = {lab.node_id: lab.name for lab in register.labs()}
    return found


def rows(found: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {line["lab"]: (line["standing"], line["why"]) for line in found["labs"]}


def test_while_the_model_is_sent_it_says_to_whom(state: Coordination) -> None:
    register, exchange = Register(state.folder), Exchange(grace=10.0)
    enrol(register, "aachen", "bremen", "celle")
    labs = {name: Silent() for name in ("aachen", "bremen", "celle")}
    for name, lab in labs.items():
        exchange.arrive(name, lab)
    status = status_of(state, exchange, "release", "aachen", "bremen", "celle")
    exchange.post({name: Task(message_id="1") for name in labs})
    exchange.answer("aachen", Reply(message_id="1"))
    exchange.leave("celle", labs["celle"])
    with state.locked():
        status.write()
        found = read_status(state)
    assert found["running"] and found["waits_for"] == "bremen, celle"
    sent = "is to get the model now"
    assert rows(found) == {
        "aachen": ("online", ""),
        "bremen": ("online", sent),
        "celle": ("away", sent),
    }
    # the coordinator was stopped: it has to be started for those that have nothing
    left = read_status(state)
    assert not left["running"] and left["waits_for"] == ""
    assert {standing for standing, _ in rows(left).values()} == {"away"}
    assert all("start the coordinator again" in why for _, why in rows(left).values())


def test_what_is_invited_and_revoked_without_a_coordinator_is_shown(
    state: Coordination, capsys: pytest.CaptureFixture[str]
) -> None:
    register, exchange = Register(state.folder), Exchange(grace=10.0)
    status_of(state, exchange, "waiting for labs").write()
    assert json.loads(state.status_path.read_text())["labs"] == []
    invite(register, "dresden")
    ((standing, why),) = rows(read_status(state)).values()
    assert standing == "invited" and why.startswith("has not joined; the invite ends")
    register.revoke("dresden")
    enrol(register, "aachen", "bremen")
    status_of(state, exchange, "finished", "bremen").write()
    register.revoke("aachen")
    found = read_status(state)
    assert rows(found)["aachen"] == ("revoked", "has the model")
    assert "has not got the model yet" in rows(found)["bremen"][1]
    print_status(found)
    line = next(line for line in capsys.readouterr().out.splitlines() if "aachen" in line)
    assert "revoked" in line and "has the model" in line
    # and so by the coordinator, if it is started for bremen
    running = status_of(state, exchange, "finished", "bremen").as_json()
    assert rows(running)["aachen"] == ("revoked", "has the model")


def test_who_waits_for_nobody_says_so_once_and_how_to_invite(
    state: Coordination, caplog: pytest.LogCaptureFixture
) -> None:
    status = status_of(state, Exchange(grace=10.0), "waiting for labs")
    with pytest.raises(QuorumError, match="invite labs first"):
        wait_for_all(status, 0.5)
    assert status.waits_for == "a first lab: nobody is invited yet"
    said = f"nobody is invited yet: crossply server invite LAB-NAME --state {state.folder}, for"
    assert caplog.text.count(said) == 1
    caplog.clear()
    invite(status.register, "aachen")
    with pytest.raises(QuorumError, match=r"aachen \(invited, has not joined\)"):
        wait_for_all(status, 0.0)
    assert "nobody" not in caplog.text and status.waits_for == "aachen (invited, has not joined)"
