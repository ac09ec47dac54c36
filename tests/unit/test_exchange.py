"""Tasks and replies: delivered again, counted once, and nobody waited for in vain."""

import threading
import time

from common.errors import NO_REPLY, NOT_CONNECTED, REVOKED
from common.link_pb2 import Farewell, Reply, Task
from server.exchange import Exchange


class Lab:
    """A connection that notes what it is sent, and answers if told to."""

    def __init__(self, exchange: Exchange, name: str, answers: bool = True) -> None:
        self.exchange, self.name, self.answers = exchange, name, answers
        self.got: list[str] = []
        self.farewells: list[Farewell] = []

    def send(self, task: Task) -> None:
        self.got.append(task.message_id)
        if self.answers:
            reply = Reply(message_id=task.message_id)
            threading.Thread(target=self.exchange.answer, args=(self.name, reply)).start()

    def close(self, farewell: Farewell) -> None:
        self.farewells.append(farewell)


def task(number: int) -> Task:
    return Task(message_id=str(number))


def test_replies_come_by_lab_and_silence_has_a_code() -> None:
    exchange = Exchange(grace=0.0)
    exchange.arrive("aachen", Lab(exchange, "aachen"))
    exchange.arrive("bremen", Lab(exchange, "bremen", answers=False))
    answers = exchange.ask({lab: task(1) for lab in ("aachen", "bremen", "celle")}, timeout=0.3)
    assert answers == {"aachen": Reply(message_id="1"), "bremen": NO_REPLY, "celle": NOT_CONNECTED}


def test_fault_9_a_reply_counts_once_and_only_while_its_task_is_open() -> None:
    exchange = Exchange(grace=0.0)
    silent = Lab(exchange, "aachen", answers=False)
    exchange.arrive("aachen", silent)
    assert not exchange.answer("aachen", Reply(message_id="1"))
    exchange.post({"aachen": task(2)})
    assert not exchange.answer("aachen", Reply(message_id="1"))
    assert exchange.answer("aachen", Reply(message_id="2"))
    assert not exchange.answer("aachen", Reply(message_id="2"))
    assert exchange.take("aachen") == Reply(message_id="2")
    assert exchange.take("aachen") is None


def test_a_task_is_delivered_again_to_a_lab_that_comes_back_within_the_grace() -> None:
    exchange = Exchange(grace=10.0)
    first = Lab(exchange, "aachen", answers=False)
    exchange.arrive("aachen", first)

    def comes_back() -> None:
        time.sleep(0.1)
        exchange.leave("aachen", first)
        exchange.arrive("aachen", Lab(exchange, "aachen"))

    threading.Thread(target=comes_back).start()
    answers = exchange.ask({"aachen": task(1)}, timeout=10.0)
    assert first.got == ["1"] and answers == {"aachen": Reply(message_id="1")}


def test_a_second_connection_replaces_the_first_and_outlives_its_end() -> None:
    exchange = Exchange(grace=0.0)
    first, second = Lab(exchange, "aachen"), Lab(exchange, "aachen")
    exchange.arrive("aachen", first)
    exchange.arrive("aachen", second)
    assert [farewell.reason for farewell in first.farewells] == [Farewell.REPLACED]
    exchange.leave("aachen", first)
    assert exchange.connected() == {"aachen"}


def test_a_revoked_lab_is_out_until_a_new_invite_brings_it_back() -> None:
    exchange = Exchange(grace=60.0)
    lab = Lab(exchange, "aachen", answers=False)
    exchange.arrive("aachen", lab)
    exchange.revoke(["aachen"])
    assert [farewell.reason for farewell in lab.farewells] == [Farewell.REVOKED]
    exchange.leave("aachen", lab)
    before = time.monotonic()
    assert exchange.ask({"aachen": task(1)}, timeout=30.0) == {"aachen": REVOKED}
    exchange.wait_for(["aachen"], timeout=30.0)
    assert time.monotonic() - before < 5
    assert not exchange.arrive("aachen", Lab(exchange, "aachen"))
    exchange.revoke([])
    assert exchange.arrive("aachen", Lab(exchange, "aachen"))


def test_whoever_comes_after_the_farewell_gets_it_too() -> None:
    exchange = Exchange(grace=0.0)
    exchange.close(Farewell(reason=Farewell.FINISHED))
    late = Lab(exchange, "aachen")
    exchange.arrive("aachen", late)
    assert [farewell.reason for farewell in late.farewells] == [Farewell.FINISHED]
