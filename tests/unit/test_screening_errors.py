"""No lab owns the intervals, novelty and errors of all: what it held out is what it can have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.lab import HELD_OUT_FOLDS
from client.rounding import rounded
from client.splits import fold_of_each, held_out_of
from common.counts import bucketed
from common.errors import ReplyError
from common.federation import Federation
from common.intervals import CalibrationSums, score_counts
from common.messages import EvaluateReply
from common.metrics import ErrorSums
from server.screening_errors import check_errors

FEDERATION = Federation.model_validate(
    {
        "name": "test",
        "targets": {"strength": {"unit": "MPa", "range": [0, 200]}},
        "imaging": {"scale": "fit"},
        "backbone": {"name": "resnet18"},
    }
)


def reply(measured: np.ndarray) -> EvaluateReply:
    """Return what a lab says that held out specimens with these values of strength, in MPa."""
    targets = np.asarray(measured, dtype=np.float64)[:, None]
    errors = ErrorSums.of(targets, targets + 5.0, FEDERATION.target_shift)
    scores = np.linspace(0.1, 3.0, len(targets))[:, None]
    counts = np.stack([score_counts(scores[::2]), score_counts(scores[1::2])])
    return EvaluateReply(
        num_examples=len(targets),
        errors=errors,
        baseline=errors,
        calibration=CalibrationSums(
            counts=counts, spreads=np.ones((2, 1)), novelty=score_counts(scores)[0]
        ),
    )


@given(
    groups=st.lists(st.integers(0, 60), min_size=25, max_size=400).filter(
        lambda groups: len(set(groups)) >= HELD_OUT_FOLDS
    ),
    twins=st.integers(0, 400),
    seed=st.integers(0, 1000),
)
def test_an_honest_lab_is_never_refused_with_round_counts_or_without(
    groups: list[int], twins: int, seed: int
) -> None:
    # some labs have one batch that is most of what they have
    numbers = np.array(groups + [groups[0]] * twins)
    fold = fold_of_each(numbers, folds=HELD_OUT_FOLDS, lab="celle", seed=seed)
    held_out = held_out_of(fold)
    values = np.random.default_rng(seed).choice([0.0, 80.0, 200.0], held_out.sum())
    told, num_training = reply(values), int((~held_out).sum())
    check_errors(told, num_training, FEDERATION)
    in_steps = rounded(told)
    assert isinstance(in_steps, EvaluateReply)
    check_errors(in_steps, bucketed(num_training), FEDERATION)


def test_a_lab_that_claims_more_than_it_can_hold_out() -> None:
    honest = reply(np.full(40, 80.0))
    check_errors(honest, 80, FEDERATION)
    for claimed, num_training in ((10**11, 80), (41, 80), (100, 100), (20, 10)):
        lie = replace(honest, num_examples=claimed)
        with pytest.raises(ReplyError, match=f"{claimed} specimens held out beside"):
            check_errors(lie, num_training, FEDERATION)


def test_folds_of_a_simulation_may_be_larger() -> None:
    check_errors(reply(np.full(41, 80.0)), 40, FEDERATION, one_in=1)


def test_measured_values_beyond_the_federations_range() -> None:
    high = reply(np.full(40, 201.0))
    with pytest.raises(ReplyError, match="measured values: a mean lies outside"):
        check_errors(high, 160, FEDERATION)
    wide = reply(np.repeat([-10.0, 210.0], 20))
    with pytest.raises(ReplyError, match="measured values: a spread is wider"):
        check_errors(wide, 160, FEDERATION)
    with pytest.raises(ReplyError, match="measured values: a spread is wider"):
        check_errors(replace(reply(np.full(40, 80.0)), baseline=wide.errors), 160, FEDERATION)


def test_scores_are_counted_whole_and_no_more_often_than_measured() -> None:
    honest = reply(np.array([*[80.0] * 30, *[np.nan] * 10]))
    with pytest.raises(ReplyError, match="more scores than specimens with the target"):
        check_errors(honest, 160, FEDERATION)
    sums = reply(np.full(40, 80.0)).calibration
    assert sums is not None
    for name, of in (("counts", sums.counts / 2), ("novelty", sums.novelty / 2)):
        halves = replace(reply(np.full(40, 80.0)), calibration=replace(sums, **{name: of}))
        with pytest.raises(ReplyError, match="a count is not a whole number"):
            check_errors(halves, 160, FEDERATION)
    strange = replace(sums, novelty=sums.novelty * 2)
    with pytest.raises(ReplyError, match="more scores of novelty than specimens"):
        check_errors(replace(reply(np.full(40, 80.0)), calibration=strange), 160, FEDERATION)
