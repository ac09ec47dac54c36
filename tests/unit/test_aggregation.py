"""What no lab can have counted or measured is refused, however well it fits together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from common.counts import bucketed
from common.errors import ReplyError
from common.federation import Federation
from common.messages import StatisticsReply
from common.standardise import Moments
from server.screening import check_statistics

FEDERATION = Federation.model_validate(
    {
        "name": "test",
        "targets": {"strength": {"unit": "MPa", "range": [0, 200]}},
        "imaging": {"scale": "fit"},
        "backbone": {"name": "resnet18"},
    }
)


def statistics(count: int) -> StatisticsReply:
    def moments(length: int) -> Moments:
        ones = np.ones(length)
        return Moments(count=count * ones, total=0.5 * count * ones, squares=count * ones)

    return StatisticsReply(
        num_examples=count, features=moments(FEDERATION.num_features), targets=moments(1)
    )


def test_counts_that_a_lab_can_have() -> None:
    check_statistics(statistics(500), bucketed(500), FEDERATION)


def test_a_lab_that_counts_a_million_million_specimens_in_every_phase() -> None:
    many = 10**12
    with pytest.raises(ReplyError, match="1000000000000 specimens are more than any lab has"):
        check_statistics(statistics(many), bucketed(many), FEDERATION)


def test_a_spread_that_would_make_all_targets_nothing() -> None:
    wide = replace(
        statistics(50), targets=replace(statistics(50).targets, squares=np.array([1e300]))
    )
    with pytest.raises(ReplyError, match="a spread is wider than the federation's range"):
        check_statistics(wide, bucketed(50), FEDERATION)
