"""A Flower grid in one process: real ClientApps, messages that go over a wire of bytes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import count

from flwr.app import Context, Error, Message, RecordDict, UserConfig
from flwr.app.message import make_message
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.common.serde_utils import metadata_from_proto, metadata_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import Metadata as ProtoMetadata

from common.errors import INTERNAL
from common.messages import ERROR_NUMBER
from server.grid import RunGrid
from simulation.written import Written

log = logging.getLogger(__name__)

FIRST_LAB_NODE = 2

LABS_IN_A_ROW = 16
"""Reading and writing messages goes faster while the processor still has that code at hand."""


LABS_AT_ONCE = 128
"""Of so many labs replies are held at once, where a run can do with them one after the other."""


class ReplyGrid(RunGrid):
    """A grid that keeps replies, by the id of the message that they answer, until they are pulled.

    Parameters
    ----------
    run_id : int
    """

    def __init__(self, run_id: int) -> None:
        super().__init__(run_id)
        self._replies: dict[str, Message] = {}

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies to some messages that have come, each once."""
        found = [self._replies.pop(id_, None) for id_ in message_ids]
        return [reply for reply in found if reply is not None]


class InProcessGrid(ReplyGrid):
    """Virtual labs, one node each, answered one after the other in this process.

    Every message and reply is written and read back (`simulation.written`): what a lab or the
    coordinator does to it reaches no other, and nothing passes that could not pass between
    machines.

    Parameters
    ----------
    client_app : ClientApp
        The same for all labs; a lab is known by its node's configuration.
    node_configs : mapping of str to UserConfig
        Lab's name -> its node's configuration.
    run_id : int
    """

    labs_at_once = LABS_AT_ONCE

    def __init__(
        self, client_app: ClientApp, node_configs: Mapping[str, UserConfig], run_id: int = 1
    ) -> None:
        super().__init__(run_id)
        self._client_app = client_app
        self._contexts = {
            node: Context(run_id, node, config, RecordDict(), {})
            for node, config in enumerate(node_configs.values(), start=FIRST_LAB_NODE)
        }
        self._message_numbers = count(1)

    def get_node_ids(self) -> list[int]:
        """Return the labs' nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Deliver messages; each is answered at once, and its reply kept until it is pulled."""
        asked = list(messages)
        ids = [self._number(message) for message in asked]
        self._answer(asked)
        return ids

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Deliver messages and return all replies; labs answer at once, there is no waiting."""
        return self.pull_messages(self.push_messages(messages))

    def _number(self, message: Message) -> str:
        message_id = str(next(self._message_numbers))
        message.metadata.__dict__["_message_id"] = message_id
        return message_id

    def _answer(self, messages: Sequence[Message]) -> None:
        # a strategy sends one record to all
        contents = {id(message.content): message.content for message in messages}
        parcels = {key: Written.of(content) for key, content in contents.items()}
        for start in range(0, len(messages), LABS_IN_A_ROW):
            row = messages[start : start + LABS_IN_A_ROW]
            received = [_received(message, parcels[id(message.content)]) for message in row]
            replies = [self._reply(message) for message in received]
            for message, reply in zip(row, replies, strict=True):
                self._replies[message.metadata.message_id] = over_the_wire(reply)

    def _reply(self, received: Message) -> Message:
        node = received.metadata.dst_node_id
        try:
            return self._client_app(received, self._contexts[node])
        except Exception:
            # what a lab's code raises must not end the other labs' run, here as in deployment
            log.exception("node %d failed", node)
            return Message(Error(ERROR_NUMBER, INTERNAL), reply_to=received)


def over_the_wire(message: Message) -> Message:
    """Return a message as the other side gets it: written to bytes and read back."""
    if message.has_content():
        return _received(message, Written.of(message.content))
    proto = ProtoMessage.FromString(message_to_proto(message).SerializeToString())
    return message_from_proto(proto)


def _received(message: Message, written: Written) -> Message:
    proto = ProtoMetadata.FromString(metadata_to_proto(message.metadata).SerializeToString())
    return make_message(metadata_from_proto(proto), written.read())
