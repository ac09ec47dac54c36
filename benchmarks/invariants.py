"""What has to hold after a run, whatever broke during it: I1 to I4 of FAULTS.

Each check returns sentences, of what did not hold; none is a good answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import Error, Message
from flwr.clientapp import ClientApp

from benchmarks.loopback import Consortium
from client.app import client_app
from client.opening import open_lab
from common.errors import NOT_CONNECTED
from common.federation import Federation, load_federation
from common.messages import ERROR_NUMBER, STATISTICS, TRAIN, TrainRequest
from server.rounds import run_federation
from server.state import RunResult
from simulation.grid import InProcessGrid


class ReplayGrid(InProcessGrid):
    """Labs in one process that take part only where a record says that they did."""

    def __init__(
        self,
        app: ClientApp,
        labs: Sequence[str],
        record: Mapping[str, Any],
        federation: Federation,
    ) -> None:
        super().__init__(app, {name: {"lab": name} for name in labs})
        self._names = dict(zip(self.get_node_ids(), labs, strict=True))
        self._record = record
        self._federation = federation
        self._by_round = {entry["server_round"]: entry["labs"] for entry in record["rounds"]}

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Deliver messages to the labs that took part; the others are away."""
        replies = []
        for message in messages:
            if self._names[message.metadata.dst_node_id] in self._present(message):
                replies += super().send_and_receive([message])
            else:
                message.metadata.__dict__["_message_id"] = f"away-{id(message)}"
                replies.append(Message(Error(ERROR_NUMBER, NOT_CONNECTED), reply_to=message))
        return replies

    def _present(self, message: Message) -> Sequence[str]:
        if message.metadata.message_type == TRAIN:
            request = TrainRequest.from_record(message.content, federation=self._federation)
            return list(self._by_round[request.server_round])
        if message.metadata.message_type == STATISTICS:
            return list(self._record["standardiser_of"])
        return list(self._names.values())


def replayed(site: Consortium) -> RunResult:
    """Compute a release again, from its record and the labs' data."""
    record = site.result()
    federation = load_federation(site.server)
    names = record["standardiser_of"]
    labs = {name: open_lab(site.folder / f"data-{name}", federation, name) for name in names}
    app = client_app(lambda context: labs[str(context.node_config["lab"])])
    return run_federation(ReplayGrid(app, names, record, federation), federation)


def check_rounds(site: Consortium, labs: Sequence[str], num_rounds: int) -> list[str]:
    """I1: every round once, and one and the same model everywhere."""
    found = []
    numbers = [entry["server_round"] for entry in site.result()["rounds"]]
    if numbers != list(range(1, num_rounds + 1)):
        found.append(f"I1: the rounds are {numbers}")
    for name in labs:
        path = site.state(name) / "model" / "model.safetensors"
        if name in site.result()["labs"] and (
            not path.exists() or path.read_bytes() != site.model_bytes()
        ):
            found.append(f"I1: {name} has another model, or none")
    return found


def check_replay(site: Consortium) -> list[str]:
    """I2: the release follows from its record, to the bit."""
    again, model = replayed(site), site.model()
    same = all(np.array_equal(again.head[name], array) for name, array in model.head.items())
    return [] if same else ["I2: computed again, the head has other bits"]


def check_privacy(site: Consortium, labs: Sequence[str]) -> list[str]:
    """I3: what labs hold stands nowhere at the coordinator, and their logs are whole."""
    found = []
    private = [r"\bS\d\d\b", r"\.png", r"tests\.csv", *(f"data-{name}" for name in labs)]
    for name in labs:
        rows = (site.folder / f"data-{name}" / "tests.csv").read_text().splitlines()[1:]
        values = [re.escape(row.split(",")[1]) for row in rows]
        private += [rf"(?<![\d.]){value}(?![\d])" for value in values]
    pattern = re.compile("|".join(private))
    files = [*site.folder.glob("*-server-start.log"), *site.server.rglob("*.json")]
    for path in files:
        if hit := pattern.search(path.read_text(errors="replace")):
            found.append(f"I3: {path.name} holds {hit.group()!r}")
    for name in labs:
        done = site.tries("lab", "log", "--verify", "--state", site.state(name))
        if done.exit_code != 0:
            found.append(f"I3: the log of {name} is broken: {done.exception}")
    return found


def check_reasons(site: Consortium, hostile: str) -> list[str]:
    """I4: who is missing in a round is named, with a reason."""
    found: list[str] = []
    out: set[str] = set()
    in_at_first = set(site.result()["standardiser_of"])
    for entry in site.result()["rounds"]:
        named = set(entry["failed"]) | set(entry["quarantined"]) | out
        if missing := in_at_first - set(entry["labs"]) - named:
            found.append(f"I4: round {entry['server_round']} lacks {sorted(missing)} unnamed")
        out |= set(entry["quarantined"])
    if hostile in in_at_first and "NaN" not in site.result()["excluded"].get(hostile, ""):
        found.append("I4: the hostile lab was not quarantined for what it sent")
    return found


def check_memory(
    samples: Sequence[tuple[float, str, float]], roles: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Compare the peaks of the first and the last third of the run, by role.

    Parameters
    ----------
    samples : sequence of (seconds since the beginning, role, megabytes)
    roles : sequence of str

    Returns
    -------
    list of str
        What did not hold.
    list of list of str
        A row for each role, for a table.
    """
    found, rows = [], []
    end = max(when for when, _, _ in samples)
    for role in roles:
        first = [mb for when, who, mb in samples if who == role and when < end / 3]
        last = [mb for when, who, mb in samples if who == role and when > 2 * end / 3]
        if not first or not last:
            continue
        rows.append([role, f"{max(first):.0f}", f"{max(last):.0f}"])
        if max(last) > 1.1 * max(first) + 20:
            found.append(f"memory: {role} went from {max(first):.0f} to {max(last):.0f} MB")
    return found, rows
