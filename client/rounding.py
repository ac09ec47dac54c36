"""A lab's replies with their numbers of specimens rounded down, where its policy says so."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import numpy as np

from common.counts import bucketed
from common.messages import (
    ComponentsReply,
    EvaluateReply,
    GramReply,
    OwnModelReply,
    StatisticsReply,
    TrainReply,
    TrialReply,
)
from common.metrics import ErrorSums
from common.standardise import Moments

Sums: TypeAlias = (
    StatisticsReply
    | ComponentsReply
    | GramReply
    | TrainReply
    | EvaluateReply
    | OwnModelReply
    | TrialReply
)
"""What is made of a lab's specimens."""


def rounded(reply: Sums) -> Sums:
    """Return a reply with its numbers of specimens rounded down, and its sums with them.

    Each sum is multiplied by the same factor as its count, so that means and spreads stay.

    Examples
    --------
    >>> sums = Moments(count=np.array([57.0]), total=np.array([570.0]), squares=np.array([6000.0]))
    >>> reply = rounded(StatisticsReply(num_examples=57, features=sums, targets=sums))
    >>> reply.num_examples, float(reply.features.total[0])
    (50, 500.0)
    """
    if isinstance(reply, TrialReply):
        return replace(reply, count=_buckets(reply.count))
    num_examples = bucketed(reply.num_examples)
    if isinstance(reply, TrainReply | OwnModelReply):
        return replace(reply, num_examples=num_examples)
    factor = num_examples / reply.num_examples
    if isinstance(reply, ComponentsReply):
        return ComponentsReply(num_examples=num_examples, product=reply.product * factor)
    if isinstance(reply, GramReply):
        sums = reply.sums.counted_as(num_examples, _buckets(reply.sums.counts))
        return GramReply(num_examples=num_examples, sums=sums)
    if isinstance(reply, EvaluateReply):
        return EvaluateReply(
            num_examples=num_examples,
            errors=ErrorSums(**_rounded_sums(vars(reply.errors))),
            baseline=reply.baseline and ErrorSums(**_rounded_sums(vars(reply.baseline))),
            # counts of single specimens would tell by their fractions how many there are
            calibration=None,
        )
    return StatisticsReply(
        num_examples=num_examples,
        features=Moments(**_rounded_sums(vars(reply.features))),
        targets=Moments(**_rounded_sums(vars(reply.targets))),
    )


def _rounded_sums(sums: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    count = sums["count"]
    buckets = _buckets(count)
    factor = buckets / np.maximum(count, 1.0)
    return {name: buckets if name == "count" else array * factor for name, array in sums.items()}


def _buckets(counts: np.ndarray) -> np.ndarray:
    return np.array([bucketed(int(n)) if n else 0 for n in counts], dtype=np.float64)
