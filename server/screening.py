"""What the coordinator lets into its sums and averages: plain checks of what a lab has sent."""

from __future__ import annotations

import re

import numpy as np

from common.counts import bucketed
from common.errors import ReplyError
from common.federation import Federation
from common.head import HeadArrays, federation_shapes, initial_head
from common.messages import (
    ComponentsReply,
    GramReply,
    HandshakeReply,
    OwnModelReply,
    StatisticsReply,
    Terms,
    TrainReply,
)
from common.standardise import CLIP, Moments, Standardiser

VERSION_NUMBER = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){0,3}((a|b|rc|\.dev|\.post)[0-9]{1,4})?")
FINGERPRINT = re.compile("[0-9a-f]{64}")
"""What is repeated of a lab's words about itself in a sentence that others read: nothing else."""

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


def check_terms(hello: HandshakeReply, ours: Terms) -> None:
    """Check that a lab runs the coordinator's version and holds its agreement.

    Raises
    ------
    ReplyError
        Names both versions, or both fingerprints.
    """
    if hello.version != ours.version:
        is_number = VERSION_NUMBER.fullmatch(hello.version)
        theirs = hello.version if is_number else "without a number"
        raise ReplyError(f"runs crossply {theirs}, the coordinator {ours.version}")
    if hello.fingerprint != ours.fingerprint:
        is_hash = FINGERPRINT.fullmatch(hello.fingerprint)
        theirs = hello.fingerprint[:12] if is_hash else "without a fingerprint"
        raise ReplyError(f"holds the agreement {theirs}, the coordinator {ours.fingerprint[:12]}")


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
    check_moments(reply.features, count, "features")
    check_moments(reply.targets, count, "targets")
    if (reply.features.squares > count * LARGEST_FEATURE**2).any():
        raise ReplyError("features: values beyond any that a network gives")
    check_ranges(reply.targets, federation, "targets")


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
    if moved <= LARGEST_STEP:
        # as any head may: as a rule its own norm is not asked for, lab after lab
        return
    allowed = LARGEST_STEP * (1.0 + _norm(head))
    if not moved <= allowed:
        raise ReplyError(f"the head moved by {moved:.3g}, more than {allowed:.3g}")


def check_own_model(reply: OwnModelReply, num_examples: int, federation: Federation) -> None:
    """Check a head that a lab has trained alone, before other labs get to try it.

    Raises
    ------
    ReplyError
        If the number of specimens is another one, or no specimens inside the federation's ranges
        have such means and spreads, or the head is absurdly large.
    """
    check_number(reply.num_examples, num_examples)
    standardiser = reply.standardiser
    if not np.array_equal(standardiser.feature_weight, federation.feature_weight):
        raise ReplyError("own model: the features' weights are not those of the agreement")
    low, high = np.array(_ranges(federation)).T
    # a column that does not vary has the scale 1
    widest = np.maximum((high - low) / 2 * (1 + ROUNDING), 1.0)
    slack = ROUNDING * (high - low)
    for mean, scale, lowest, highest, most in (
        (standardiser.target_mean, standardiser.target_scale, low - slack, high + slack, widest),
        (
            standardiser.feature_mean,
            standardiser.feature_scale,
            -LARGEST_FEATURE,
            LARGEST_FEATURE,
            LARGEST_FEATURE,
        ),
    ):
        if (mean < lowest).any() or (mean > highest).any():
            raise ReplyError("own model: a mean lies outside what can be")
        if (scale <= 0).any() or (scale > most).any():
            raise ReplyError("own model: a spread that no specimens have")
    size = _norm(reply.head)
    allowed = LARGEST_STEP * (1.0 + _norm(initial_head(federation_shapes(federation), 0)))
    if not size <= allowed:
        raise ReplyError(f"own model: the head's norm is {size:.3g}, more than {allowed:.3g}")


def check_product(reply: ComponentsReply, num_examples: int, federation: Federation) -> None:
    """Check a lab's product of features and a basis: its own number, and no larger than can be.

    Raises
    ------
    ReplyError
        If the number of specimens is another one, or an entry is larger than clipped features give.
    """
    check_number(reply.num_examples, num_examples)
    # features are clipped, and the basis is orthonormal: by Cauchy and Schwarz no entry is larger
    largest = CLIP * federation.feature_weight
    allowed = num_examples * largest[:, None] * np.sqrt((largest**2).sum())
    if (np.abs(reply.product) > allowed * (1 + ROUNDING)).any():
        raise ReplyError("components: an entry is larger than standardised features give")


def check_gram(
    reply: GramReply,
    num_examples: int,
    target_counts: np.ndarray,
    federation: Federation,
    standardiser: Standardiser,
) -> None:
    """Check a lab's Gram sums: its own numbers, and sums that products of numbers can have.

    Features are clipped and directions orthonormal, targets lie in their ranges: neither
    coordinates nor standardised targets can be larger than that allows.

    Raises
    ------
    ReplyError
        Names the first sum that cannot be.
    """
    check_number(reply.num_examples, num_examples)
    sums = reply.sums
    if not np.allclose(sums.counts, target_counts, rtol=1e-6):
        raise ReplyError("gram sums: a target's count is not that of the statistics")
    if not np.isclose(sums.num_examples, num_examples, rtol=1e-6):
        raise ReplyError("gram sums: the count is not that of the statistics")
    longest = float(((CLIP * federation.feature_weight) ** 2).sum())
    ends = np.array(_ranges(federation)) - standardiser.target_mean[:, None]
    largest = (np.abs(ends).max(axis=1) / standardiser.target_scale) ** 2
    if (sums.squares > sums.counts * largest * (1 + 1e-6)).any():
        raise ReplyError("gram sums: targets beyond the federation's range")
    _check_products(sums.everyone, longest * num_examples)
    for gram, cross, squares in zip(sums.gram, sums.cross, sums.squares, strict=True):
        _check_products(gram, longest * num_examples)
        _check_products(np.block([[gram, cross[:, None]], [cross[None], squares]]), np.inf)


def _check_products(matrix: np.ndarray, largest: float) -> None:
    """Check that a matrix is one of sums of products, with no diagonal entry above `largest`."""
    sizes = np.diag(matrix)
    if (sizes < 0).any() or (sizes[:-1] > largest * (1 + 1e-6)).any():
        raise ReplyError("gram sums: products beyond any of standardised features")
    # each row and column in its own unit: what is large hides nothing in what is small
    scale = np.sqrt(np.where(sizes > 0, sizes, 1.0))
    relative = matrix / scale[:, None] / scale
    if not np.allclose(relative, relative.T, atol=1e-9):
        raise ReplyError("gram sums: a matrix is not symmetric")
    if np.linalg.eigvalsh(relative)[0] < -1e-6 * len(relative):
        raise ReplyError("gram sums: no specimens have such products")


def check_number(found: int, num_examples: int) -> None:
    """Check that a lab counts as many specimens as it did before."""
    if found != num_examples:
        raise ReplyError(f"sums over {found} specimens, and counted {num_examples} before")


def check_moments(moments: Moments, at_most: int, what: str) -> None:
    """Check that counts are whole numbers up to one, and sums such as numbers have.

    Raises
    ------
    ReplyError
        If they are not; says of what.
    """
    count = moments.count
    if (count < 0).any() or (count > at_most).any() or (count != np.round(count)).any():
        raise ReplyError(f"{what}: a count is not a whole number from 0 to {at_most}")
    # Cauchy and Schwarz: no numbers have a smaller sum of squares for their sum
    if (moments.total**2 > count * moments.squares * (1 + ROUNDING)).any():
        raise ReplyError(f"{what}: a sum of squares is smaller than its sum allows")
    if ((count == 0) & (moments.squares != 0)).any():
        raise ReplyError(f"{what}: a sum over no values is not zero")


def check_ranges(moments: Moments, federation: Federation, what: str) -> None:
    """Check that numbers inside the targets' ranges have these sums, about the ranges' middles.

    Raises
    ------
    ReplyError
        If they have not; says of what.
    """
    half = np.array([(high - low) / 2 for low, high in _ranges(federation)])
    if (np.abs(moments.total) > moments.count * half * (1 + ROUNDING)).any():
        raise ReplyError(f"{what}: a mean lies outside the federation's range")
    if (moments.squares > moments.count * half**2 * (1 + ROUNDING)).any():
        raise ReplyError(f"{what}: a spread is wider than the federation's range")


def _ranges(federation: Federation) -> list[tuple[float, float]]:
    return [target.range for target in federation.targets.values()]


def _norm(head: HeadArrays) -> float:
    return float(np.sqrt(sum(float(np.vdot(array, array)) for array in head.values())))
