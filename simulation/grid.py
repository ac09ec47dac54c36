"""A Flower grid in one process: real ClientApps, messages that go over a wire of bytes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import TypeGuard

import numpy as np
from flwr.app import ArrayRecord, Context, Error, Message, RecordDict, UserConfig
from flwr.app.message import make_message
from flwr.clientapp import ClientApp
from flwr.common.serde import (
    message_from_proto,
    message_to_proto,
    recorddict_from_proto,
    recorddict_to_proto,
)
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict

from common.errors import INTERNAL
from common.messages import ERROR_NUMBER
from common.records import HeldArray, array_record
from server.grid import RunGrid

log = logging.getLogger(__name__)

FIRST_LAB_NODE = 2

NUMBERS = {"float32", "float64", "int64"}
"""Arrays of these are their bytes; what else a lab may come up with goes through Flower's."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """A record as it lies between two machines: many may read it, and no one changes it.

    Arrays as this project writes them are a copy of their bytes. The rest, and arrays that a lab
    wrote in another way, are Flower's own bytes.

    Attributes
    ----------
    arrays : dict of str to dict of str to ndarray
        Read-only.
    others : bytes
    keys : tuple of str
    """

    arrays: dict[str, dict[str, np.ndarray]]
    others: bytes
    keys: tuple[str, ...]

    @classmethod
    def of(cls, record: RecordDict) -> Written:
        """Write a record.

        Examples
        --------
        >>> sent = np.ones(2, dtype=np.float32)
        >>> written = Written.of(RecordDict({"arrays": array_record({"bias": sent})}))
        >>> sent[:] = 7
        >>> written.read()["arrays"]["bias"].numpy()
        array([1., 1.], dtype=float32)
        """
        arrays = {key: _frozen(part) for key, part in record.items() if _is_held(part)}
        others = RecordDict({key: part for key, part in record.items() if key not in arrays})
        return cls(
            arrays=arrays,
            others=recorddict_to_proto(others).SerializeToString(),
            keys=tuple(record),
        )

    def read(self) -> RecordDict:
        """Return the record, whose every part is the reader's own."""
        found = recorddict_from_proto(ProtoRecordDict.FromString(self.others))
        if not self.arrays:
            return found
        arrays = self.arrays
        return RecordDict(
            {key: array_record(arrays[key]) if key in arrays else found[key] for key in self.keys}
        )


def _is_held(part: object) -> TypeGuard[ArrayRecord]:
    return isinstance(part, ArrayRecord) and all(
        type(array) is HeldArray and array.dtype in NUMBERS for array in part.values()
    )


def _frozen(part: ArrayRecord) -> dict[str, np.ndarray]:
    frozen = {}
    for name, array in part.items():
        frozen[name] = array.numpy()
        frozen[name].flags.writeable = False
    return frozen


class InProcessGrid(RunGrid):
    """Virtual labs, one node each, answered one after the other in this process.

    Every message and reply is turned into bytes and back, so that no two labs share memory and
    nothing passes that could not pass between machines.

    Parameters
    ----------
    client_app : ClientApp
        The same for all labs; a lab is known by its node's configuration.
    node_configs : mapping of str to UserConfig
        Lab's name -> its node's configuration.
    run_id : int
    """

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
        self._replies: dict[str, Message] = {}

    def get_node_ids(self) -> list[int]:
        """Return the labs' nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Deliver messages; each is answered at once, and its reply kept until it is pulled."""
        asked = list(messages)
        ids = [self._number(message) for message in asked]
        written: dict[int, Written] = {}
        for message in asked:
            # a strategy sends one record to all
            key = id(message.content)
            if key not in written:
                written[key] = Written.of(message.content)
            self._answer(_received(message, written[key]))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies to some messages that have come, each once."""
        found = [self._replies.pop(id_, None) for id_ in message_ids]
        return [reply for reply in found if reply is not None]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Deliver messages and return all replies; labs answer at once, there is no waiting."""
        return self.pull_messages(self.push_messages(messages))

    def _number(self, message: Message) -> str:
        message_id = str(next(self._message_numbers))
        message.metadata.__dict__["_message_id"] = message_id
        return message_id

    def _answer(self, received: Message) -> None:
        node = received.metadata.dst_node_id
        try:
            reply = self._client_app(received, self._contexts[node])
        except Exception:
            # what a lab's code raises must not end the other labs' run, here as in deployment
            log.exception("node %d failed", node)
            reply = Message(Error(ERROR_NUMBER, INTERNAL), reply_to=received)
        self._replies[received.metadata.message_id] = over_the_wire(reply)


def over_the_wire(message: Message) -> Message:
    """Return a message as the other side gets it: written to bytes and read back."""
    if not message.has_content():
        return _through_bytes(message)
    return _received(message, Written.of(message.content))


def _received(message: Message, written: Written) -> Message:
    envelope = _through_bytes(make_message(message.metadata, RecordDict(), None))
    envelope.content = written.read()
    return envelope


def _through_bytes(message: Message) -> Message:
    return message_from_proto(
        ProtoMessage.FromString(message_to_proto(message).SerializeToString())
    )
