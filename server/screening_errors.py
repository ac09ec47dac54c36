"""What the coordinator lets into the errors, intervals and novelty of all labs: plain checks."""

from __future__ import annotations

import numpy as np

from common.counts import HELD_OUT_ONE_IN, bucketed, largest_behind
from common.errors import ReplyError
from common.federation import Federation
from common.messages import EvaluateReply, TrialReply
from common.metrics import ErrorSums
from common.standardise import Moments
from server.screening import check_moments, check_ranges


def check_errors(
    reply: EvaluateReply,
    num_examples: int,
    federation: Federation,
    one_in: int = HELD_OUT_ONE_IN,
) -> None:
    """Check the sums of a lab's errors: no more specimens than it can hold out, and no other sums.

    All labs' errors, intervals and novelty follow from these sums: what a lab counts here is its
    weight in them.

    Parameters
    ----------
    reply : EvaluateReply
    num_examples : int
        The lab's training specimens, as it counted them for the standardiser.
    federation : Federation
    one_in : int
        It holds out one specimen in so many at most.

    Raises
    ------
    ReplyError
        Names the first sum that cannot be.
    """
    _check_held_out(reply.num_examples, num_examples, one_in)
    _check_error_sums(reply, reply.errors, federation)
    if reply.baseline is not None:
        _check_error_sums(reply, reply.baseline, federation)
    check_calibration(reply)


def check_trial(trial: TrialReply, num_examples: int, one_in: int = HELD_OUT_ONE_IN) -> None:
    """Check what a lab tells of another one's head: whole counts, no more than it can hold out.

    How large an error is says as much of the head as of the lab that tried it: it puts nobody out.

    Raises
    ------
    ReplyError
        Names what cannot be.
    """
    count = trial.count
    if (count != np.round(count)).any():
        raise ReplyError("trial: a count is not a whole number")
    if ((count == 0) & (trial.error != 0)).any():
        raise ReplyError("trial: an error over no specimens is not zero")
    _check_held_out(int(count.max()), num_examples, one_in)


def _check_held_out(held_out: int, num_examples: int, one_in: int) -> None:
    trained_on = num_examples
    # a lab that rounds its counts rounds all of them, each down by its own factor
    if bucketed(held_out) == held_out:
        trained_on = largest_behind(num_examples)
    if one_in * held_out > held_out + trained_on:
        raise ReplyError(
            f"{held_out} specimens held out beside {num_examples} for training, more than one in "
            f"{one_in}"
        )


def _check_error_sums(reply: EvaluateReply, errors: ErrorSums, federation: Federation) -> None:
    measured = Moments(count=errors.count, total=errors.measured, squares=errors.measured_squared)
    check_moments(measured, reply.num_examples, "measured values")
    check_ranges(measured, federation, "measured values")
    wrong = Moments(count=errors.count, total=errors.absolute, squares=errors.squared)
    check_moments(wrong, reply.num_examples, "errors")
    if (errors.absolute < 0).any():
        raise ReplyError("errors: a sum of sizes is negative")


def check_calibration(reply: EvaluateReply) -> None:
    """Check the counts of a lab's scores, where it tells them.

    Raises
    ------
    ReplyError
        Names the first that cannot be.
    """
    sums = reply.calibration
    if sums is None:
        return
    if any((array < 0).any() for array in vars(sums).values()):
        raise ReplyError("calibration: a count or a sum is negative")
    if any((array != np.round(array)).any() for array in (sums.counts, sums.novelty)):
        raise ReplyError("calibration: a count is not a whole number")
    if (sums.counts.sum(axis=(0, 2)) > reply.errors.count).any():
        raise ReplyError("calibration: more scores than specimens with the target")
    if sums.novelty.sum() > reply.num_examples:
        raise ReplyError("calibration: more scores of novelty than specimens")
