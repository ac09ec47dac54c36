"""Sums of errors are about the specimens that were measured, and not about whom a head chooses."""

from __future__ import annotations

import numpy as np
import pytest

from client.evaluation import evaluate
from client.specimens import Specimens
from common.errors import RequestError
from common.federation import Federation
from common.head import federation_shapes, initial_head
from common.standardise import Standardiser

FEDERATION = Federation.model_validate(
    {
        "name": "test",
        "targets": {"strength": {"unit": "MPa", "range": [0, 200]}},
        "imaging": {"scale": "fit"},
        "backbone": {"name": "resnet18"},
        "head": {"hidden": [4]},
    }
)
NUM_FEATURES = FEDERATION.num_features


def specimens() -> Specimens:
    generator = np.random.default_rng(0)
    return Specimens(
        lab="celle",
        ids=tuple(f"S{i}" for i in range(30)),
        features=generator.normal(0, 1, (30, NUM_FEATURES)).astype(np.float32),
        targets=generator.uniform(0, 200, (30, 1)),
        groups=np.arange(30),
    )


def test_a_head_that_overflows_for_some_specimens_learns_nothing() -> None:
    standardiser = Standardiser(
        feature_mean=np.zeros(NUM_FEATURES),
        feature_scale=np.ones(NUM_FEATURES),
        feature_weight=np.ones(NUM_FEATURES),
        target_mean=np.zeros(1),
        target_scale=np.ones(1),
    )
    head = initial_head(federation_shapes(FEDERATION), 0)
    assert evaluate(head, standardiser, specimens(), FEDERATION).count[0] == 30
    # finite itself, and beyond float32 wherever its first feature is above a threshold
    first, last = head["0.weight"] * 0, np.full_like(head["1.weight"], 1e38)
    first[:, 0] = 1e30
    chooses = head | {"0.weight": first, "1.weight": last}
    with pytest.raises(RequestError, match="not finite for every specimen"):
        evaluate(chooses, standardiser, specimens(), FEDERATION)
