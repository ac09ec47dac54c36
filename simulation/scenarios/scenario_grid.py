"""A grid around another, on which what a scenario says befalls labs in rounds of training.

A lab that is away is not asked. One whose reply would be late is not asked either: its reply would
be dropped, and a lab keeps nothing from round to round. What hostile labs send is altered on its
way, so that the engine behind makes no difference. Nothing here waits: a virtual clock is put on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import count

import numpy as np
from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

from common.errors import NOT_CONNECTED, RequestError
from common.messages import (
    CONFIG,
    ERROR_NUMBER,
    HANDSHAKE,
    HEAD,
    LAB,
    METRICS,
    SERVER_ROUND,
    TRAIN,
    TrainReply,
)
from common.records import RecordReader, array_record
from server.rounds import FIRST_PAUSE_S, LONGEST_PAUSE_S
from simulation.grid import ReplyGrid
from simulation.scenarios.attacks import in_words, tampered
from simulation.scenarios.events import Diary, Event, RoundTime
from simulation.scenarios.scenario import Hostile
from simulation.scenarios.script import LATE, LEFT, Script

MOST_ATTEMPTS = 20
"""At one round, before a run that stays below its quorum ends."""


class ScenarioGrid(ReplyGrid):
    """Asks the labs of another grid, those that are there.

    Parameters
    ----------
    grid : Grid
    script : Script
    diary : Diary
        Written to.
    run_id : int
    """

    def __init__(self, grid: Grid, script: Script, diary: Diary, run_id: int = 1) -> None:
        super().__init__(run_id)
        self._grid = grid
        self._script = script
        self._diary = diary
        self._labs: dict[int, str] = {}
        self._unsent = count(1)
        self._round, self._attempt = 0, 0
        self._is_training = False
        self._clock = 0.0
        self._pause = FIRST_PAUSE_S
        self._left: set[str] = set()

    def get_node_ids(self) -> list[int]:
        """Return the labs' nodes."""
        return list(self._grid.get_node_ids())

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Deliver messages; what comes of them is kept until it is pulled."""
        asked = list(messages)
        for reply in self._ask(asked, None):
            self._replies[reply.metadata.reply_to_message_id] = reply
        return [message.metadata.message_id for message in asked]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Deliver messages and return the replies; `timeout` is of real time."""
        return self._ask(list(messages), timeout)

    def again(self, why: str) -> bool:
        """Tell whether a round below its quorum is to be tried again: by chance it may succeed."""
        if not self._is_training or not self._script.has_chances:
            return False
        if self._attempt >= MOST_ATTEMPTS:
            return False
        self._note("below the quorum", f"tried again; {why}")
        self._clock += self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_S)
        return True

    def _ask(self, asked: Sequence[Message], timeout: float | None) -> list[Message]:
        kinds = {message.metadata.message_type for message in asked}
        self._is_training = kinds == {TRAIN}
        if self._is_training:
            return self._train(asked, timeout)
        gone = [message for message in asked if self._lab(message) in self._left]
        there = [message for message in asked if self._lab(message) not in self._left]
        replies = list(self._grid.send_and_receive(there, timeout=timeout)) if there else []
        if kinds == {HANDSHAKE}:
            self._learn_names(asked, replies)
        return [*replies, *(self._not_connected(message) for message in gone)]

    def _train(self, asked: Sequence[Message], timeout: float | None) -> list[Message]:
        self._begin_round(_round_of(asked[0]))
        by_name = sorted(asked, key=self._lab)
        fates = {
            lab: self._script.missing(lab, self._round, self._attempt)
            for lab in map(self._lab, by_name)
        }
        there = [message for message in by_name if self._trains(message, fates)]
        replies = [
            reply
            for message in by_name
            if not self._trains(message, fates)
            and (reply := self._instead(message, fates[self._lab(message)])) is not None
        ]
        answered = list(self._grid.send_and_receive(there, timeout=timeout)) if there else []
        by_number = {reply.metadata.reply_to_message_id: reply for reply in answered}
        for message in there:
            self._tamper(message, by_number.get(message.metadata.message_id))
        self._end_round(fates)
        return [*replies, *answered]

    def _trains(self, message: Message, fates: Mapping[str, str | None]) -> bool:
        lab = self._lab(message)
        attack = self._script.attack(lab, self._round)
        rides_free = attack is not None and attack.attack == "free_rider"
        return fates[lab] is None and not rides_free

    def _instead(self, message: Message, why: str | None) -> Message | None:
        """Return the reply of a lab that does not train, if there is one, and note why."""
        self._number(message)
        lab = self._lab(message)
        attack = self._script.attack(lab, self._round)
        if why is None and attack is not None:
            self._note_attack(attack, lab)
            return self._untrained(message, attack)
        if why is not None and lab not in self._left:
            self._note(why, lab=lab)
        # nothing in time, or at once that there is nobody
        return None if why == LATE else self._not_connected(message)

    def _begin_round(self, server_round: int) -> None:
        if server_round != self._round:
            self._round, self._attempt, self._pause = server_round, 0, FIRST_PAUSE_S
        self._attempt += 1

    def _end_round(self, fates: Mapping[str, str | None]) -> None:
        script, number = self._script, self._round
        self._left |= {lab for lab, why in fates.items() if why == LEFT}
        if not script.has_times:
            return
        times = [script.duration(lab, number) for lab, why in fates.items() if why is None]
        seconds = script.deadline if LATE in fates.values() else max(times, default=0.0)
        self._clock += seconds
        time = RoundTime(
            fold=script.fold,
            server_round=number,
            attempt=self._attempt,
            seconds=seconds,
            clock=self._clock,
        )
        self._diary.times.append(time)

    def _tamper(self, message: Message, reply: Message | None) -> None:
        attack = self._script.attack(self._lab(message), self._round)
        if attack is None or reply is None or not reply.has_content():
            return
        self._note_attack(attack, self._lab(message))
        head = tampered(_head(message), _head(reply), attack)
        metrics = reply.content.metric_records[METRICS]
        reply.content = RecordDict({HEAD: array_record(head), METRICS: metrics})

    def _untrained(self, message: Message, attack: Hostile) -> Message:
        head = _head(message)
        claimed = self._script.num_training[self._lab(message)]
        told = TrainReply(head=tampered(head, head, attack), num_examples=claimed, train_loss=None)
        return Message(told.to_record(), reply_to=message)

    def _not_connected(self, message: Message) -> Message:
        self._number(message)
        return Message(Error(ERROR_NUMBER, NOT_CONNECTED), reply_to=message)

    def _number(self, message: Message) -> None:
        """Give a message that goes nowhere a number that no other has."""
        if not message.metadata.message_id:
            message.metadata.__dict__["_message_id"] = f"unsent-{next(self._unsent)}"

    def _learn_names(self, asked: Sequence[Message], replies: Sequence[Message]) -> None:
        nodes = {m.metadata.message_id: m.metadata.dst_node_id for m in asked}
        for reply in replies:
            if reply.has_content():
                node = nodes[reply.metadata.reply_to_message_id]
                self._labs[node] = str(reply.content.config_records[CONFIG][LAB])

    def _lab(self, message: Message) -> str:
        return self._labs.get(message.metadata.dst_node_id, "")

    def _note_attack(self, attack: Hostile, lab: str) -> None:
        self._note(attack.attack.replace("_", " "), in_words(attack), lab)

    def _note(self, kind: str, words: str = "", lab: str | None = None) -> None:
        event = Event(
            kind=kind,
            words=words,
            lab=lab,
            fold=self._script.fold,
            server_round=self._round,
            attempt=self._attempt,
        )
        self._diary.events.append(event)


def _round_of(message: Message) -> int:
    return RecordReader(message.content, RequestError).config(CONFIG).count(SERVER_ROUND)


def _head(message: Message) -> dict[str, np.ndarray]:
    record = message.content.array_records[HEAD]
    return {name: array.numpy() for name, array in record.items()}
