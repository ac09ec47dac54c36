"""What becomes of the labs' updates beside Flower's strategies, as plain functions of arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from common.head import HeadArrays
from common.messages import TrainReply

OUTPUT_ARRAYS = 2
"""The last of a head: weight and bias of the layer that has a row for each target."""


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
    output = list(updates[0].head)[-OUTPUT_ARRAYS:]
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


@dataclass(frozen=True, kw_only=True)
class RunningMean:
    """The mean of heads, weighed by numbers of specimens, that keeps none of them.

    It adds what Flower's FedAvg and those made of it add, in the same order, and so comes to the
    same bits; they would hold the heads of all labs at once. Each lab's share has to be known
    before the first comes: whoever uses it sees that the labs are those that were expected.

    Attributes
    ----------
    num_examples : mapping of int to int
        The labs that are expected, by node.

    Examples
    --------
    >>> mean, kept = RunningMean(num_examples={2: 1, 3: 3}), []
    >>> for number, count in ((4.0, 1), (8.0, 3)):
    ...     head = {f"{n}.{kind}": np.full(1, number) for n in "02" for kind in ("weight", "bias")}
    ...     kept.append(mean.take(TrainReply(head=head, num_examples=count, train_loss=0.1)))
    >>> list(kept[0].head)
    ['2.weight', '2.bias']
    >>> {name: float(array[0]) for name, array in mean.completed(kept).head.items()}
    {'0.weight': 7.0, '0.bias': 7.0, '2.weight': 7.0, '2.bias': 7.0}
    """

    num_examples: Mapping[int, int]
    _sums: dict[str, np.ndarray] = field(default_factory=dict, init=False)

    def take(self, update: TrainReply) -> TrainReply:
        """Add all but a head's output layer; return the update with nothing but that layer.

        Its rows are weighed by the counts of all labs first (`weigh_rows`).
        """
        names = list(update.head)
        hidden, output = names[:-OUTPUT_ARRAYS], names[-OUTPUT_ARRAYS:]
        self._add({name: update.head[name] for name in hidden}, update.num_examples)
        return replace(update, head={name: update.head[name] for name in output})

    def completed(self, updates: Sequence[TrainReply]) -> TrainReply:
        """Add what `take` has returned, in the same order; return the mean as an update of all."""
        for update in updates:
            self._add(update.head, update.num_examples)
        return TrainReply(head=self._sums, num_examples=self._total, train_loss=None)

    @cached_property
    def _total(self) -> int:
        return sum(self.num_examples.values())

    def _add(self, arrays: HeadArrays, num_examples: int) -> None:
        share = num_examples / self._total
        for name, array in arrays.items():
            if name in self._sums:
                self._sums[name] += array * share
            else:
                self._sums[name] = array * share


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
