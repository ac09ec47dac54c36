"""What crossply's grids do alike, whoever is at their other end."""

from __future__ import annotations

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

COORDINATOR_NODE = 1


class RunGrid(Grid):
    """A grid of one run, whose messages are made in this process; who is there, subclasses say.

    Parameters
    ----------
    run_id : int
    """

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
