"""What the coordinator accepts into its sums and averages, as plain functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from common.errors import ReplyError
from common.federation import Federation
from common.head import HeadArrays
from common.messages import EvaluateReply, StatisticsReply, TrainReply, bucketed
from common.metrics import ErrorSums
from common.standardise import Moments

LARGEST_STEP = 100.0
"""A head may move in a round by this many times its own norm (plus one) before it is absurd."""

LARGEST_FEATURE = 1e6
"""No feature of a pooled network, nor a covariate in its unit, has a larger root mean square."""

LARGEST_COUNT = 1_000_000
"""No lab has tested so many specimens."""

LARGEST_LOSS = 1e6
"""A mean squared error of standardised targets beyond this has nothing to do with training."""

ROUNDING = 1e-9
"""Relative slack of inequalities between float64 sums."""


def check_statistics(reply: StatisticsReply, bucket: int, federation: Federation) -> None:
    """Check a lab's sums: whole counts, sums that numbers can have, means inside the ranges.

    Parameters
    ----------
    reply : StatisticsReply
    bucket : int
        The lab's number of specimens as it was rounded in the handshake.
    federation : Federation

    Raises
    ------
    ReplyError
        Names the first sum that cannot be.
    """
    count = reply.num_examples
    if bucketed(count) != bucket:
        raise ReplyError(f"{count} specimens now, and about {bucket} in the handshake")
    if count > LARGEST_COUNT:
        raise ReplyError(f"{count} specimens are more than any lab has")
    if not (reply.features.count == count).all():
        raise ReplyError("the features' counts differ from the number of specimens")
    _check_moments(reply.features, count, "features")
    _check_moments(reply.targets, count, "targets")
    if (reply.features.squares > count * LARGEST_FEATURE**2).any():
        raise ReplyError("features: values beyond any that a network gives")
    half = np.array([(high - low) / 2 for low, high in _ranges(federation)])
    if (np.abs(reply.targets.total) > reply.targets.count * half * (1 + ROUNDING)).any():
        raise ReplyError("targets: a mean lies outside the federation's range")
    if (reply.targets.squares > reply.targets.count * half**2 * (1 + ROUNDING)).any():
        raise ReplyError("targets: a spread is wider than the federation's range")


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
        If the count is another one, the loss cannot be, or the head moved absurdly far.

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
    if reply.train_loss is not None and not 0 <= reply.train_loss <= LARGEST_LOSS:
        raise ReplyError(f"a training loss of {reply.train_loss:.3g} cannot be")
    moved = _norm({name: reply.head[name] - head[name] for name in head})
    allowed = LARGEST_STEP * (1.0 + _norm(head))
    if not moved <= allowed:
        raise ReplyError(f"the head moved by {moved:.3g}, more than {allowed:.3g}")


def check_errors(reply: EvaluateReply) -> None:
    """Check the sums of a lab's errors: whole counts, and sums that numbers can have.

    Raises
    ------
    ReplyError
        Names the first sum that cannot be.
    """
    errors: ErrorSums = reply.errors
    measured = Moments(count=errors.count, total=errors.measured, squares=errors.measured_squared)
    _check_moments(measured, reply.num_examples, "measured values")
    wrong = Moments(count=errors.count, total=errors.absolute, squares=errors.squared)
    _check_moments(wrong, reply.num_examples, "errors")
    if (errors.absolute < 0).any():
        raise ReplyError("errors: a sum of sizes is negative")


def fill_missing_rows(updates: Sequence[TrainReply], counts: np.ndarray) -> list[TrainReply]:
    """Give labs that lack a target the row of the head that the others made of it.

    A lab without a target sends that target's output row back as it came, decayed; averaged in,
    it would hold back the labs that have learned something about it.

    Parameters
    ----------
    updates : sequence of TrainReply
    counts : ndarray of shape (n_updates, n_targets)
        Measured values of each target at each lab.

    Returns
    -------
    list of TrainReply
        With the rows of absent targets replaced by the count-weighted mean of the others'.

    Examples
    --------
    >>> def update(row: float) -> TrainReply:
    ...     head = {"0.weight": np.full((1, 1), row), "0.bias": np.full(1, row)}
    ...     return TrainReply(head=head, num_examples=9, train_loss=0.1)
    >>> filled = fill_missing_rows([update(1), update(4), update(0)], np.array([[6], [3], [0]]))
    >>> [float(update.head["0.weight"][0, 0]) for update in filled]
    [1.0, 4.0, 2.0]
    """
    output = list(updates[0].head)[-2:]
    heads = [dict(update.head) for update in updates]
    for target in np.flatnonzero((counts == 0).any(axis=0) & (counts > 0).any(axis=0)):
        shares = counts[:, target] / counts[:, target].sum()
        for name in output:
            row = sum(
                share * update.head[name][target]
                for share, update in zip(shares, updates, strict=True)
            )
            for lab in np.flatnonzero(counts[:, target] == 0):
                heads[lab][name] = heads[lab][name].copy()
                heads[lab][name][target] = row
    return [replace(update, head=head) for update, head in zip(updates, heads, strict=True)]


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


def _check_moments(moments: Moments, at_most: int, what: str) -> None:
    count = moments.count
    if (count < 0).any() or (count > at_most).any() or (count != np.round(count)).any():
        raise ReplyError(f"{what}: a count is not a whole number from 0 to {at_most}")
    # Cauchy and Schwarz: no numbers have a smaller sum of squares for their sum
    if (moments.total**2 > count * moments.squares * (1 + ROUNDING)).any():
        raise ReplyError(f"{what}: a sum of squares is smaller than its sum allows")
    if ((count == 0) & (moments.squares != 0)).any():
        raise ReplyError(f"{what}: a sum over no values is not zero")


def _ranges(federation: Federation) -> list[tuple[float, float]]:
    return [target.range for target in federation.targets.values()]


def _norm(head: HeadArrays) -> float:
    return float(np.sqrt(sum(float(np.vdot(array, array)) for array in head.values())))
