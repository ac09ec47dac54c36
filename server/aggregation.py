"""What the coordinator accepts into an average, as plain functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.errors import ReplyError
from common.head import HeadArrays
from common.messages import TrainReply

LARGEST_STEP = 100.0
"""A head may move in a round by this many times its own norm (plus one) before it is absurd."""


def check_update(reply: TrainReply, head: HeadArrays, num_examples: int) -> None:
    """Check a lab's update against what the coordinator knows.

    Parameters
    ----------
    reply : TrainReply
        Its keys, shapes, dtype and finiteness are checked already.
    head : mapping of name to ndarray
        The head that was sent.
    num_examples : int
        The lab's training specimens, as it counted them for the standardiser.

    Raises
    ------
    ReplyError
        If the count is another one, or the head moved absurdly far.

    Examples
    --------
    >>> head = {"0.weight": np.ones((1, 1), dtype=np.float32)}
    >>> moved = {"0.weight": np.full((1, 1), 1e9, dtype=np.float32)}
    >>> check_update(TrainReply(head=moved, num_examples=3, train_loss=0.1), head, 3)
    Traceback (most recent call last):
    ...
    common.errors.ReplyError: the head moved by 1e+09, more than 200
    """
    if reply.num_examples != num_examples:
        raise ReplyError(
            f"trained on {reply.num_examples} specimens, and counted {num_examples} before"
        )
    moved = _norm({name: reply.head[name] - head[name] for name in head})
    allowed = LARGEST_STEP * (1.0 + _norm(head))
    if not moved <= allowed:
        raise ReplyError(f"the head moved by {moved:.3g}, more than {allowed:.3g}")


def mean_loss(updates: Sequence[TrainReply]) -> float:
    """Return the training loss over the specimens of all labs.

    Examples
    --------
    >>> mean_loss([TrainReply(head={}, num_examples=n, train_loss=n) for n in (1, 3)])
    2.5
    """
    total = sum(update.num_examples for update in updates)
    return sum(update.num_examples * update.train_loss for update in updates) / total


def _norm(head: HeadArrays) -> float:
    squares = [np.square(array, dtype=np.float64).sum() for array in head.values()]
    return float(np.sqrt(sum(squares)))
