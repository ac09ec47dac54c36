"""A head on a shared projection: folded, saved, equal on both engines, and agreed to the letter."""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import Context, Error, Message, UserConfig
from flwr.clientapp import ClientApp
from numpy.testing import assert_allclose, assert_array_equal
from pydantic import ValidationError

from client.app import client_app, read_train_request
from client.lab import Lab, split_lab
from client.specimens import Specimens
from client.training import plan_for, train_head
from common.components import product_with
from common.errors import ConfigurationError, RequestError
from common.federation import Federation
from common.messages import COMPONENTS, GRAM, TRAIN, training_records
from common.projection import find_projection, first_head, folded, projected, random_projection
from common.records import array_record
from common.seeds import seed_for
from common.standardise import Standardiser
from server.rounds import RunOptions, run_federation
from server.state import Progress, RunResult
from simulation.batched import BatchedGrid
from simulation.consortium import Consortium
from simulation.experiment import run_experiment
from simulation.grid import InProcessGrid
from simulation.modes import MODES

SIZES = {"aachen": 30, "bremen": 20, "celle": 25}
CONFIGS: dict[str, UserConfig] = {name: {"lab": name} for name in SIZES}


def agreement(projection: str, **training: Any) -> Federation:
    return Federation.model_validate(
        {
            "name": "test",
            "targets": {"strength": {"unit": "MPa", "range": [0, 200]}},
            "imaging": {"scale": "fit"},
            "backbone": {"name": "resnet18"},
            "head": {"hidden": [8], "projection": projection}
            | ({} if projection == "none" else {"components": 16}),
            "training": {"rounds": 4, "learning_rate": 0.01} | training,
            "privacy": {"min_specimens": 4},
        }
    )


def make_labs(federation: Federation) -> dict[str, Lab]:
    """Draw labs whose features live near a plane of ten directions, which their targets go by."""
    made = {}
    common = np.random.default_rng(0)
    plane = common.normal(size=(10, federation.num_features))
    weights = common.normal(size=(10, 1))
    for name, size in SIZES.items():
        generator = np.random.default_rng(size)
        where = generator.normal(size=(size, 10))
        features = where @ plane + generator.normal(0, 0.1, (size, federation.num_features))
        specimens = Specimens(
            lab=name,
            ids=tuple(f"{name}-{row}" for row in range(size)),
            features=features.astype(np.float32),
            targets=90.0 + 5.0 * where @ weights,
            groups=np.arange(size),
        )
        made[name] = split_lab(specimens, federation, np.arange(size) % 5 == 0)
    return made


def run(federation: Federation, options: RunOptions | None = None) -> RunResult:
    labs = make_labs(federation)
    app = client_app(lambda context: labs[str(context.node_config["lab"])])
    return run_federation(InProcessGrid(app, CONFIGS), federation, options)


class Keeping:
    """Keeps all progress in memory."""

    def __init__(self) -> None:
        self.kept: list[Progress] = []

    def load(self) -> Progress | None:
        return self.kept[-1] if self.kept else None

    def save(self, progress: Progress) -> None:
        self.kept.append(progress)


def test_principal_components_across_labs_are_those_of_pooled_data() -> None:
    federation = agreement("pca")
    keeper = Keeping()
    standardiser = run(federation, RunOptions(keeper=keeper)).standardiser
    features = np.concatenate([lab.training.features for lab in make_labs(federation).values()])
    pooled = standardiser.features(features)
    expected = find_projection(federation, len(pooled), lambda basis: product_with(pooled, basis))
    found = keeper.kept[0].projection
    assert found is not None and expected is not None and found.shape == (512, 16)
    # along the ten directions that there are; what is left is noise in all directions alike
    assert_allclose(found[:, :10], expected[:, :10], rtol=1e-5, atol=1e-7)
    exact = np.linalg.svd(pooled, full_matrices=False)[2][:10]
    lengths = np.linalg.norm(exact @ (found / np.linalg.norm(found, axis=0)), axis=1)
    assert_allclose(lengths, 1.0, atol=1e-3)


@pytest.mark.parametrize("projection", ["pca", "random"])
def test_a_released_head_does_to_features_what_the_trained_one_did_to_inputs(
    projection: str,
) -> None:
    federation = agreement(projection)
    keeper = Keeping()
    result = run(federation, RunOptions(keeper=keeper))
    last = keeper.kept[-1]
    assert last.projection is not None
    assert last.state.head["0.weight"].shape == (8, 16)
    assert result.head["0.weight"].shape == (8, 512)
    assert_array_equal(result.head["0.weight"], last.state.head["0.weight"] @ last.projection.T)
    losses = [record.train_loss for record in result.history]
    assert losses[-1] < losses[0]
    # evaluated by the labs with features as they are
    assert set(result.evaluation.errors) == set(SIZES)


def test_a_round_of_one_lab_is_training_on_projected_features() -> None:
    federation = agreement("random", rounds=1, quorum=0.1)
    lab = make_labs(federation)["celle"]
    app = client_app(lambda context: lab)
    result = run_federation(InProcessGrid(app, {"celle": {"lab": "celle"}}), federation)
    projection = random_projection(federation)
    inputs = projected(result.standardiser.features(lab.training.features), projection)
    plan = plan_for(federation, epochs=2, seed=seed_for(0, "train", "celle", 1), proximal_mu=0.0)
    targets = result.standardiser.targets(lab.training.targets)
    head, _ = train_head(first_head(federation), inputs, targets, plan)
    for name, array in folded(head, projection).items():
        assert_allclose(result.head[name], array, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("projection", ["pca", "random"])
def test_law_4_with_a_projection(projection: str) -> None:
    federation = agreement(projection)
    labs = make_labs(federation)
    batched = BatchedGrid(lambda context: labs[str(context.node_config["lab"])], CONFIGS)
    one, other = run_federation(batched, federation), run(federation)
    assert_allclose(
        [record.train_loss for record in one.history],
        [record.train_loss for record in other.history],
        rtol=1e-4,
    )


def test_the_baseline_is_summed_along_the_components_that_heads_are_trained_on() -> None:
    with_pca, without = run(agreement("pca")), run(agreement("none"))
    assert with_pca.products is not None and without.products is not None
    assert with_pca.products.basis.shape == (512, 16)
    assert with_pca.products.ridge.mean_square[0] < 0.05


def test_a_run_goes_on_to_the_same_bits_with_the_projection_that_it_began_with() -> None:
    whole = Keeping()
    expected = run(agreement("pca"), RunOptions(keeper=whole))
    # as if it had been killed after the second round
    stopped = Keeping()
    stopped.kept = whole.kept[:3]
    assert stopped.kept[-1].state.server_round == 2
    found = run(agreement("pca"), RunOptions(keeper=stopped))
    assert all((found.head[name] == expected.head[name]).all() for name in expected.head)


def test_a_request_to_train_carries_what_was_agreed_and_nothing_else() -> None:
    federation = agreement("pca")
    lab = make_labs(federation)["celle"]
    seen: list[Any] = []

    class Listening(InProcessGrid):
        def send_and_receive(self, messages: Any, **how: Any) -> Any:
            asked = list(messages)
            seen.extend(asked)
            return super().send_and_receive(asked, **how)

    app = client_app(lambda context: lab)
    run_federation(Listening(app, {"celle": {"lab": "celle"}}), federation)
    kinds = [message.metadata.message_type for message in seen]
    assert kinds.count(COMPONENTS) == 2 and kinds.count(GRAM) == 1
    record = next(m.content for m in seen if m.metadata.message_type == TRAIN)
    assert read_train_request(lab, record).projection is not None
    wide = array_record({"projection": np.zeros((512, 17), np.float32)})
    record["projection"] = wide
    with pytest.raises(RequestError, match=r"expected float32 of shape \(512, 16\)"):
        read_train_request(lab, record)
    del record["projection"]
    with pytest.raises(RequestError, match="projection: expected the arrays"):
        read_train_request(lab, record)


def test_a_random_projection_does_not_travel() -> None:
    federation = agreement("random")
    standardiser = Standardiser.fit(
        np.eye(4, 512),
        np.ones((4, 1)),
        feature_shift=federation.feature_shift,
        feature_weight=federation.feature_weight,
        target_shift=federation.target_shift,
    )
    sent = training_records(standardiser, random_projection(federation), federation)
    assert list(sent) == ["standardiser"]
    other = federation.replace(training=federation.training.replace(seed=1).model_dump())
    assert (random_projection(other) != random_projection(federation)).any()


def test_fewer_specimens_than_components_leave_inputs_at_zero() -> None:
    federation = agreement("pca")
    generator = np.random.default_rng(0)
    features = generator.normal(size=(5, 512)).astype(np.float32)
    features -= features.mean(axis=0)
    found = find_projection(federation, 5, lambda basis: product_with(features, basis))
    assert found is not None and found.shape == (512, 16)
    assert_array_equal(found[:, 4:], 0.0)
    # and lose nothing
    kept = ((features @ found) ** 2).sum(axis=1) * 16 / 512
    assert_allclose(kept, (features**2).sum(axis=1), rtol=1e-4)


def test_principal_components_that_no_lab_tells_end_the_run() -> None:
    federation = agreement("pca")
    labs = make_labs(federation)
    honest = client_app(lambda context: labs[str(context.node_config["lab"])])

    def answer(message: Message, context: Context) -> Message:
        if message.metadata.message_type == COMPONENTS:
            return Message(Error(2, "policy"), reply_to=message)
        return honest(message, context)

    with pytest.raises(ConfigurationError, match="no lab lets them leave"):
        run_federation(InProcessGrid(cast(ClientApp, answer), CONFIGS), federation)


def test_all_modes_of_a_simulation_run_beside_a_projection() -> None:
    federation = agreement("pca")
    labs = tuple(replace(lab.training, lab=name) for name, lab in make_labs(federation).items())
    outcome = run_experiment(Consortium(federation=federation, labs=labs))
    assert set(outcome.predicted) == set(MODES)
    for mode in ("federated", "centralized", "ridge"):
        assert outcome.metrics(mode)["strength"]["r2"] > 0.5, mode


@pytest.mark.parametrize(
    ("head", "training", "message"),
    [
        ({"components": 8}, {}, 'components has no meaning with projection = "none"'),
        ({"projection": "pca", "components": 257}, {}, "less than or equal to 256"),
        (
            {"projection": "random", "hidden": []},
            {"strategy": "ridge", "rounds": 1},
            'strategy = "ridge" finds components of its own',
        ),
    ],
)
def test_a_projection_that_cannot_be_is_told(
    head: dict[str, Any], training: dict[str, Any], message: str
) -> None:
    data = agreement("none").model_dump(exclude_none=True)
    data["head"] |= head
    data["training"] |= training
    with pytest.raises(ValidationError, match=message):
        Federation.model_validate(data)
