"""What crossply's grids do alike, whoever is at their other end."""

from __future__ import annotations

from typing import ClassVar

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from common.messages import UNREADABLE_NUMBER

COORDINATOR_NODE = 1


class UnreadableError(Error):
    """In place of a reply that a grid here could not read: its reason is a sentence of ours.

    A lab can send an error of the same number, and what stands in that one is the lab's own text.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(UNREADABLE_NUMBER, sentence)


class RunGrid(Grid):
    """A grid of one run, whose messages are made in this process; who is there, subclasses say.

    Parameters
    ----------
    run_id : int

    Attributes
    ----------
    labs_at_once : int or None
        More labs than so many are better asked in groups: they take turns anyway, and answer the
        same however often they are asked. None where all labs work at the same time.
    """

    labs_at_once: ClassVar[int | None] = None

    def __init__(self, run_id: int) -> None:
        self._run = Run.create_empty(run_id)
        # Flower's messages take their sender from here
        TaskIdentity.run_id, TaskIdentity.task_id = run_id, 1
        TaskIdentity.node_id = COORDINATOR_NODE

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

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
