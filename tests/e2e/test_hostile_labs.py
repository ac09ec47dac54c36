"""FAULTS §1, 22: labs with certificates of their own that send what no honest lab would."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from typing import TypeAlias

from benchmarks.loopback import Consortium
from client.gate import Gate
from client.link import Link
from client.membership import open_membership
from client.opening import open_lab
from client.policy import Policy
from client.sent_log import SentLog
from client.service import answerer_for
from common.errors import CrossplyError
from common.link_pb2 import Reply, Task, Tensor
from common.messages import TRAIN

Change: TypeAlias = Callable[[Reply], None]

HONEST = ("aachen", "bremen")


def tensors(reply: Reply) -> list[Tensor]:
    (arrays,) = (record.arrays for record in reply.content.records if record.key == "arrays")
    return list(arrays.tensors)


def number(value: float) -> Change:
    def change(reply: Reply) -> None:
        first = tensors(reply)[0]
        first.data = struct.pack("<f", value) + first.data[4:]

    return change


def count(value: int) -> Change:
    def change(reply: Reply) -> None:
        (metrics,) = (record.metrics for record in reply.content.records if record.key == "metrics")
        next(v for v in metrics.values if v.name == "num-examples").integer = value

    return change


def other_key(reply: Reply) -> None:
    tensors(reply)[0].name = "9.weight"


def other_shape(reply: Reply) -> None:
    first = tensors(reply)[0]
    rows, columns = first.shape
    first.shape[:] = [columns, rows]


def broadcastable(reply: Reply) -> None:
    """A shape that NumPy would spread over the right one."""
    first = tensors(reply)[0]
    first.shape[:], first.data = [1, first.shape[1]], first.data[: 4 * first.shape[1]]


def more_than_it_holds(reply: Reply) -> None:
    first = tensors(reply)[0]
    first.shape[:] = [2**31, 2**31]


def nothing_in_many_dimensions(reply: Reply) -> None:
    first = tensors(reply)[0]
    first.shape[:], first.data = [0, 2**32 - 1, 2**32 - 1, 2**32 - 1], b""


def a_long_story(reply: Reply) -> None:
    (metrics,) = (record.metrics for record in reply.content.records if record.key == "metrics")
    metrics.values.add(name="\x1b" * 100_000, number=1.0)


def other_dtype(reply: Reply) -> None:
    for tensor in tensors(reply):
        tensor.dtype, tensor.data = Tensor.FLOAT64, tensor.data * 2


def no_records(reply: Reply) -> None:
    del reply.content.records[:]


def twice(reply: Reply) -> None:
    reply.content.records.append(reply.content.records[0])


def a_text(reply: Reply) -> None:
    reply.error = "/home/anna/steel.csv: 612.5"


def an_alibi(reply: Reply) -> None:
    """What the coordinator says of labs, which would shrink what a quorum is a share of."""
    reply.error = "revoked"


ATTACKS: dict[str, tuple[Change, str]] = {
    "nan": (number(float("nan")), "0.weight: holds NaN or infinity"),
    "infinity": (number(float("inf")), "0.weight: holds NaN or infinity"),
    "absurd": (number(1e30), "the head moved by"),
    "key": (other_key, "expected the arrays"),
    "shape": (other_shape, "0.weight: expected float32 of shape"),
    "broadcast": (broadcastable, "0.weight: expected float32 of shape"),
    "huge": (more_than_it_holds, "bytes where 18446744073709551616 are declared"),
    "dimensions": (nothing_in_many_dimensions, "no array has this shape"),
    "story": (a_long_story, "expected the numbers"),
    "dtype": (other_dtype, "found float64"),
    "zero": (count(0), "expected a whole number of at least 1, found 0"),
    "negative": (count(-1), "expected a whole number of at least 1, found -1"),
    "many": (count(10**12), "trained on 1000000000000 specimens, and counted"),
    "nothing": (no_records, "expected the"),
    "twice": (twice, "has the name of one before it"),
}
"""By the lab that does it: what it does to its updates, and what is said of it."""

CODES: dict[str, Change] = {"alibi": an_alibi, "text": a_text}
"""By the lab that does it: what it answers instead of an update."""


def take_part(site: Consortium, name: str, change: Change) -> None:
    """Be a lab over the real link, whose training replies are changed on their way out."""
    membership = open_membership(site.state(name))
    federation = membership.federation()
    sent = SentLog(membership.log_path)
    gate = Gate(federation=federation, lab=name, policy=Policy(), log=sent)
    honest = answerer_for(open_lab(membership.data, federation, name), gate, sent)

    def answer(task: Task) -> Reply:
        reply = honest.answer(task)
        if task.message_type == TRAIN:
            reply = Reply.FromString(reply.SerializeToString())
            change(reply)
        return reply

    link = Link(
        membership=membership,
        answer=answer,
        patience=30.0,
        has_model=lambda: False,
        max_bytes=10_000_000,
    )
    try:
        link.serve()
    except CrossplyError as error:
        # so that the test says why, if the lab was not even let in
        print(f"{name}: {error}")


def test_fault_22_hostile_labs_are_quarantined_by_name_and_the_others_go_on(
    site: Consortium,
) -> None:
    hostile = {name: change for name, (change, _) in ATTACKS.items()} | CODES
    site.joined(*HONEST, *hostile, rounds=3, quorum=0.1, round_deadline="60 s")
    coordinator = site.coordinator()
    threads = [
        threading.Thread(target=take_part, args=(site, name, change), daemon=True)
        for name, change in hostile.items()
    ]
    for thread in threads:
        thread.start()
    labs = [site.lab(lab) for lab in HONEST]
    assert coordinator.exit_code() == 0, coordinator.text()
    assert [lab.exit_code() for lab in labs] == [0, 0]
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()

    result = site.result()
    assert result["excluded"].keys() == ATTACKS.keys()
    for name, (_, words) in ATTACKS.items():
        assert words in result["excluded"][name], (name, result["excluded"][name])
    first, *later = result["rounds"]
    assert first["quarantined"].keys() == ATTACKS.keys()
    assert [record["quarantined"] for record in later] == [{}, {}]
    # a code that is none of a lab's may be a text: it is not even written down
    unknown = dict.fromkeys(sorted(CODES), "unknown")
    assert all(record["failed"] == unknown for record in result["rounds"])
    assert "anna" not in coordinator.text() + str(result)
    assert [record["labs"] for record in result["rounds"]] == [list(HONEST)] * 3
    standing = {row["lab"]: row["standing"] for row in site.status()["labs"]}
    assert {standing[name] for name in ATTACKS} == {"out"}
    assert max(len(reason) for reason in result["excluded"].values()) < 400
