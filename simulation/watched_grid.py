"""A grid of Flower's simulation engine that never waits for an engine that is gone."""

from __future__ import annotations

import time
from collections.abc import Iterable
from threading import Event

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from common.errors import EngineError, known_code

UNKNOWN = known_code(None)

PULL_S = 0.02


class WatchedGrid(Grid):
    """Another grid, with an end to every wait.

    Parameters
    ----------
    grid : Grid
    num_labs : int
        Flower registers its virtual nodes while the coordinator runs already; so many are waited
        for.
    came_up : Event
        Set when the first lab has answered.
    gone : Event
        Set when the engine has ended.
    """

    def __init__(self, grid: Grid, num_labs: int, came_up: Event, gone: Event) -> None:
        self._grid = grid
        self._num_labs = num_labs
        self._came_up = came_up
        self._gone = gone

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a new message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Return the labs' nodes, once all are there."""
        while len(nodes := list(self._grid.get_node_ids())) < self._num_labs:
            self._require_engine()
            time.sleep(PULL_S)
        return nodes

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Deliver messages."""
        return list(self._grid.push_messages(messages))

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies that have come.

        Raises
        ------
        EngineError
            If one says that the engine could not run a lab: labs themselves answer with codes.
        """
        replies = list(self._grid.pull_messages(message_ids))
        for reply in replies:
            if reply.has_error() and known_code(reply.error.reason) == UNKNOWN:
                raise EngineError(
                    "Flower's Ray engine lost the process of a lab: "
                    f"{str(reply.error.reason)[:200]}; choose --engine batched, or try again"
                )
        return replies

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Deliver messages, and return the replies that come in time."""
        waiting = set(self.push_messages(messages))
        found: list[Message] = []
        until = None if timeout is None else time.monotonic() + timeout
        while waiting and (until is None or time.monotonic() < until):
            self._require_engine()
            replies = self.pull_messages(waiting)
            waiting -= {reply.metadata.reply_to_message_id for reply in replies}
            if replies:
                self._came_up.set()
                found += replies
            else:
                time.sleep(PULL_S)
        return found

    def _require_engine(self) -> None:
        if self._gone.is_set():
            raise EngineError("Flower's Ray engine ended before the run did; try again")
