"""The labs at the other end of the link, as a Flower grid: strategies and rounds run unchanged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from flwr.app import Error, Message, RecordDict

from common.errors import COORDINATORS_CODES, ReplyError
from common.link_pb2 import Content, Task
from common.messages import ERROR_NUMBER
from common.wire import from_content, to_content
from server.exchange import Answer, Exchange
from server.grid import RunGrid, UnreadableError


class LinkGrid(RunGrid):
    """Enrolled labs, one node each.

    A message's id is made of the run, the node and the content: a coordinator that restarts and
    asks again asks under the same id, and a lab that has answered already answers the same.

    Parameters
    ----------
    exchange : Exchange
    nodes : mapping of int to str
        Node id -> lab's name, as enrolled. Nodes that are in no run yet may be among them.
    run_id : int
    """

    def __init__(self, exchange: Exchange, nodes: Mapping[int, str], run_id: int) -> None:
        super().__init__(run_id)
        self._exchange = exchange
        self._labs = dict(nodes)
        self._nodes = {lab: node for node, lab in nodes.items()}
        self._posted: dict[str, Message] = {}

    def get_node_ids(self) -> list[int]:
        """Return the nodes of the labs that are connected now."""
        return sorted(self._nodes[lab] for lab in self._exchange.connected() & set(self._nodes))

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Deliver messages and return their ids."""
        posted = list(messages)
        self._exchange.post(self._tasks(posted))
        self._posted |= {message.metadata.message_id: message for message in posted}
        return [message.metadata.message_id for message in posted]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies to some messages that have come, each once."""
        replies = []
        for message_id in message_ids:
            message = self._posted.get(message_id)
            if message is None:
                continue
            reply = self._exchange.take(self._labs[message.metadata.dst_node_id])
            if reply is not None:
                del self._posted[message_id]
                replies.append(_reply_to(message, reply))
        return replies

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Deliver messages and wait for their replies.

        A lab that does not answer is answered for: by a Flower error whose reason is a code of
        `common.errors`.
        """
        asked = list(messages)
        answers = self._exchange.ask(
            self._tasks(asked), timeout=float("inf") if timeout is None else timeout
        )
        return [_reply_to(m, answers[self._labs[m.metadata.dst_node_id]]) for m in asked]

    def _tasks(self, messages: Iterable[Message]) -> dict[str, Task]:
        tasks = {}
        # what goes to all labs alike is written and hashed once
        written: dict[int, tuple[Content, str]] = {}
        for message in messages:
            node, message_type = message.metadata.dst_node_id, message.metadata.message_type
            if id(message.content) not in written:
                written[id(message.content)] = _written(message.content)
            content, content_id = written[id(message.content)]
            told = f"{self._run.run_id} {node} {message_type} {content_id}"
            message_id = hashlib.sha256(told.encode()).hexdigest()
            message.metadata.__dict__["_message_id"] = message_id
            tasks[self._labs[node]] = Task(
                message_id=message_id, message_type=message_type, content=content
            )
        return tasks


def _written(record: RecordDict) -> tuple[Content, str]:
    content = to_content(record)
    return content, hashlib.sha256(content.SerializeToString()).hexdigest()


def _reply_to(message: Message, answer: Answer) -> Message:
    if isinstance(answer, str):
        return Message(Error(ERROR_NUMBER, answer), reply_to=message)
    if answer.WhichOneof("answer") == "error":
        # how a lab is connected, it does not say itself
        said = "unknown" if answer.error in COORDINATORS_CODES else answer.error
        return Message(Error(ERROR_NUMBER, said), reply_to=message)
    try:
        return Message(from_content(answer.content, ReplyError), reply_to=message)
    except ReplyError as error:
        return Message(UnreadableError(str(error)), reply_to=message)
