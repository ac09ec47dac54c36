"""A lab's answers: gate, app, gate, log, and each task once.

Each task goes through the lab's gate to the same ClientApp that a simulation uses, and each reply
back through the gate into the lab's log before it leaves. A task that was asked before is answered
as before, not computed anew.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.gate import Gate
from client.sent_log import SentLog
from common.errors import INTERNAL, CrossplyError, RequestError, known_code
from common.link_pb2 import Reply, Task
from common.messages import RELEASE, TRAIN, require_enrolled_names
from common.threads import one_thread
from common.wire import from_content, to_content

log = logging.getLogger(__name__)

LONGEST_NAME = 64
"""Of a task's id, a SHA-256 in hexadecimal, and of its type."""

REMEMBERED = 4
"""Replies that are kept for being asked again; an error is not, its cause may be gone by then."""


@dataclass(kw_only=True)
class Answerer:
    """Answers tasks: the lab's gate, its ClientApp, its log, and each task once.

    Attributes
    ----------
    app : ClientApp
    context : Context
    gate : Gate
    sent : SentLog
    held : callable
        Returns a context in which the process does not stop.
    trains : bool
        Whether the last that it was asked was to train: a model that is there is an older one.
    """

    app: ClientApp
    context: Context
    gate: Gate
    sent: SentLog
    held: Callable[[], AbstractContextManager[None]] = nullcontext
    trains: bool = False
    _answered: OrderedDict[str, Reply] = field(default_factory=OrderedDict)

    def answer(self, task: Task) -> Reply:
        """Return the reply to a task; errors are codes."""
        if max(len(task.message_id), len(task.message_type)) > LONGEST_NAME:
            # not even written down: a log is no place for what somebody else fills
            log.warning("a task whose id or type is no name of ours is refused")
            return Reply(message_id=task.message_id[:LONGEST_NAME], error=RequestError.code)
        reply = self._answered.get(task.message_id) or self._first_reply(task)
        with self.held():
            reply = self._logged(task, reply)
            if reply.WhichOneof("answer") == "content":
                self.trains = task.message_type == TRAIN
                self._remember(reply)
        return reply

    def _first_reply(self, task: Task) -> Reply:
        reply = Reply(message_id=task.message_id)
        try:
            reply.content.CopyFrom(to_content(self._compute(task)))
        except CrossplyError as error:
            log.warning("%s was not answered: %s", task.message_type[:40], error)
            reply.error = error.code
        except Exception:
            log.exception("%s failed", task.message_type[:40])
            reply.error = INTERNAL
        return reply

    def _remember(self, reply: Reply) -> None:
        self._answered[reply.message_id] = reply
        while len(self._answered) > REMEMBERED:
            self._answered.popitem(last=False)

    def _compute(self, task: Task) -> RecordDict:
        content = from_content(task.content, RequestError)
        # checks multiply matrices too
        with one_thread():
            self.gate.check_task(_asked(task), task.message_type, content)
            if task.message_type == RELEASE:
                require_enrolled_names(content)
            reply = self.app(_message(task, content, self.context), self.context)
        if reply.has_error():
            raise _RefusedError(known_code(reply.error.reason))
        return self.gate.check_reply(task.message_type, reply.content)

    def _logged(self, task: Task, reply: Reply) -> Reply:
        """Write down what is about to leave; what cannot be written down does not leave."""
        try:
            self.sent.append(task.message_type, reply, _asked(task))
        except CrossplyError as error:
            log.error("a reply is kept back: %s", error)
            return Reply(message_id=task.message_id, error=error.code)
        return reply


class _RefusedError(CrossplyError):
    """The lab's app has answered with a code; its text is in the log already."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code  # type: ignore[misc]  # of this one instance


def _asked(task: Task) -> str:
    return hashlib.sha256(task.content.SerializeToString(deterministic=True)).hexdigest()


def _message(task: Task, content: RecordDict, context: Context) -> Message:
    message = Message(content, context.node_id, task.message_type)
    message.metadata.__dict__["_message_id"] = task.message_id
    return message
