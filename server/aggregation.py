"""What becomes of the labs' updates beside Flower's strategies, as plain functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from common.messages import TrainReply


def weigh_rows(
    updates: Sequence[TrainReply], counts: np.ndarray, *, robust: bool
) -> list[TrainReply]:
    """Weigh each target's output row by how many specimens a lab has with that target.

    Strategies weigh a head as a whole, by a lab's number of specimens. A lab without a target
    sends that target's row back as it came, decayed, and a lab with few values sends one that it
    hardly trained: averaged in by the number of specimens, they would hold back the labs that have
    learned something about it.

    Parameters
    ----------
    updates : sequence of TrainReply
    counts : ndarray of shape (n_updates, n_targets)
        Measured values of each target at each lab.
    robust : bool
        Whether the strategy leaves out what stands apart, which a mean taken before it would undo.

    Returns
    -------
    list of TrainReply
        Where a target's counts differ from the numbers of specimens in proportion, its row is
        everywhere the mean weighted by counts. For a robust strategy, at labs without it alone, it
        is the median, entry by entry, of the labs that have it: a mean would hold what a hostile
        one among them sent, and put it to the strategy's vote once for each lab without the target.

    Examples
    --------
    >>> def update(row: float) -> TrainReply:
    ...     head = {"0.weight": np.full((1, 1), row), "0.bias": np.full(1, row)}
    ...     return TrainReply(head=head, num_examples=9, train_loss=0.1)
    >>> updates, counts = [update(1.0), update(4.0), update(0.0)], np.array([[6], [3], [0]])
    >>> [float(u.head["0.weight"][0, 0]) for u in weigh_rows(updates, counts, robust=False)]
    [2.0, 2.0, 2.0]
    >>> [float(u.head["0.weight"][0, 0]) for u in weigh_rows(updates, counts, robust=True)]
    [1.0, 4.0, 2.5]
    """
    output = list(updates[0].head)[-2:]
    weighed = list(updates)
    num_examples = np.array([update.num_examples for update in updates], dtype=np.float64)
    for target, of_target in enumerate(counts.T):
        if not (of_target > 0).any():
            continue
        shares = of_target / of_target.sum()
        alike = np.allclose(shares, num_examples / num_examples.sum(), rtol=1e-12)
        changed = of_target == 0 if robust else np.full(len(updates), not alike)
        for name in output if changed.any() else ():
            rows = [update.head[name][target] for update in updates]
            if robust:
                row = np.median([rows[lab] for lab in np.flatnonzero(~changed)], axis=0)
            else:
                row = sum(share * of_lab for share, of_lab in zip(shares, rows, strict=True))
            for lab in np.flatnonzero(changed):
                array = weighed[lab].head[name].copy()
                array[target] = row
                weighed[lab] = replace(weighed[lab], head={**weighed[lab].head, name: array})
    return weighed


def mean_loss(updates: Sequence[TrainReply]) -> float:
    """Return the training loss over the specimens of all labs that tell it; NaN if none does.

    Examples
    --------
    >>> mean_loss([TrainReply(head={}, num_examples=n, train_loss=n) for n in (1, 3)])
    2.5
    """
    told = [(u.num_examples, u.train_loss) for u in updates if u.train_loss is not None]
    total = sum(count for count, _ in told)
    return sum(count * loss for count, loss in told) / total if told else float("nan")
