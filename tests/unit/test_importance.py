"""What a model leans on, where a hand can tell."""

from functools import partial

import numpy as np
import pytest

from client.alone import Predictor
from client.evaluation import predict_in_units
from client.importance import feature_groups, partial_dependence, permutation_importance
from client.specimens import Specimens
from common.errors import LabDataError
from common.federation import Federation
from common.standardise import Standardiser

FEDERATION = Federation.model_validate(
    {
        "name": "test",
        "targets": {
            "strength": {"unit": "MPa", "range": [0, 3000]},
            "modulus": {"unit": "GPa", "range": [0, 400]},
        },
        "descriptors": {"names": ["void_area_fraction"]},
        "covariates": {"cure": {"unit": "degC", "range": [0, 250]}},
        "imaging": {"scale": "fit"},
        "backbone": {"name": "resnet18"},
        "head": {"hidden": []},
    }
)
N = FEDERATION.num_features


def model() -> Predictor:
    """Strength is 10 MPa for every degree of cure and nothing else; nobody knows the modulus."""
    weight = np.zeros((2, N), np.float32)
    weight[0, -1] = 1.0
    standardiser = Standardiser(
        feature_mean=np.full(N, 100.0),
        feature_scale=np.full(N, 50.0),
        feature_weight=np.ones(N),
        target_mean=np.array([1000.0, 70.0]),
        target_scale=np.array([500.0, 10.0]),
    )
    head = {"0.weight": weight, "0.bias": np.zeros(2, np.float32)}
    return partial(predict_in_units, head, standardiser)


def specimens(size: int = 200) -> Specimens:
    generator = np.random.default_rng(0)
    features = generator.uniform(50, 150, (size, N)).astype(np.float32)
    strength = 10.0 * features[:, -1]
    return Specimens(
        lab="celle",
        ids=tuple(f"S{i}" for i in range(size)),
        features=features,
        targets=np.column_stack([strength, np.full(size, np.nan)]),
        groups=np.arange(size),
    )


def test_groups_are_in_the_order_of_the_features() -> None:
    found = [(group.name, group.kind, group.unit) for group in feature_groups(FEDERATION)]
    assert found == [
        ("deep features", "deep", None),
        ("void_area_fraction", "descriptor", "dimensionless"),
        ("cure", "covariate", "degC"),
    ]


def test_what_the_model_uses_costs_its_mean_difference_and_the_rest_costs_nothing() -> None:
    found = permutation_importance(model(), specimens(), FEDERATION, repeats=10)
    assert found.num_specimens.tolist() == [200, 0]
    assert found.mae[0] == pytest.approx(0.0, abs=1e-3) and np.isnan(found.mae[1])
    assert found.increase[:2, 0].tolist() == [0.0, 0.0]
    # two uniform values over 100 degrees differ by a third of that: 333 MPa
    assert found.increase[2, 0] == pytest.approx(1000 / 3, rel=0.05)
    assert 0 < found.spread[2, 0] < 40
    again = permutation_importance(model(), specimens(), FEDERATION, repeats=10)
    np.testing.assert_array_equal(found.increase, again.increase)


def test_dependence_is_the_slope_in_units() -> None:
    void, cure = partial_dependence(model(), specimens(), FEDERATION)
    assert np.ptp(void.predicted[:, 0]) == 0.0
    np.testing.assert_allclose(cure.predicted[:, 0], 10.0 * cure.values, rtol=1e-5)
    assert (cure.values[0], cure.values[-1]) == pytest.approx((55, 145), abs=5)


def test_one_specimen_alone_has_nothing_to_deal_out() -> None:
    with pytest.raises(LabDataError, match="nothing to deal out"):
        permutation_importance(model(), specimens(1), FEDERATION)
