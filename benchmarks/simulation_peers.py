"""The task of `benchmarks.simulation_task` on other simulators: one row, as one line of JSON.

PEERS/bin/python -m benchmarks.simulation_peers pfl 100 5

PEERS is an environment as `benchmarks.simulation_speed` describes it.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import torch

from benchmarks.simulation_task import (
    Stopwatch,
    agreement,
    error,
    make_lab,
    pooled_standardiser,
)
from client.lab import Lab
from common.head import HeadArrays, federation_shapes, forward, initial_head


@cache
def _lab_of(number: int, rounds: int) -> Lab:
    """Return a lab, made once in each of Ray's processes."""
    return make_lab(number, agreement(rounds))


def flower_with_ray(count: int, rounds: int, watch: Stopwatch) -> float:
    """Run crossply's own two apps on Flower's Ray engine."""
    from flwr.app import Context
    from flwr.serverapp import Grid, ServerApp
    from flwr.simulation import run_simulation

    from client.app import client_app
    from server.rounds import RunOptions, Watcher, run_federation

    federation = agreement(rounds)
    found: list[float] = []
    server = ServerApp()

    @cache
    def lab_of(number: int) -> Lab:
        return make_lab(number, federation)

    @server.main()
    def coordinate(grid: Grid, context: Context) -> None:
        watcher = Watcher(counted=lambda record: watch.round_ended())
        result = run_federation(grid, federation, RunOptions(watcher=watcher))
        labs = [make_lab(number, federation) for number in range(count)]
        found.append(error(result.head, result.standardiser, labs))
        # before Ray's processes end
        print(json.dumps(watch.row(found[0])), flush=True)

    client = client_app(
        lambda context: _lab_of(int(str(context.node_config["partition-id"])), rounds)
    )
    run_simulation(server_app=server, client_app=client, num_supernodes=count)
    return found[0]


def flower_tutorial(count: int, rounds: int, watch: Stopwatch) -> float:
    """Run apps as Flower's tutorials write them: `FedAvg`, a DataLoader, AdamW as it comes."""
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation
    from torch.utils.data import DataLoader, TensorDataset

    federation = agreement(rounds)
    training = federation.training
    labs = watch.make(count, federation)
    standardiser = pooled_standardiser(labs)
    start = initial_head(federation_shapes(federation), training.seed)
    found: list[float] = []
    server, client = ServerApp(), ClientApp()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        network = _Network(start)
        network.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
        specimens = _lab_of(int(str(context.node_config["partition-id"])), rounds).training
        tables = (
            standardiser.features(specimens.features),
            standardiser.targets(specimens.targets),
        )
        loader = DataLoader(TensorDataset(*map(torch.from_numpy, tables)), 16, shuffle=True)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
        )
        for _ in range(2):
            for features, targets in loader:
                optimizer.zero_grad()
                network.loss(features, targets).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        content = RecordDict(
            {
                "arrays": ArrayRecord(network.state_dict()),
                "metrics": MetricRecord({"num-examples": len(specimens)}),
            }
        )
        return Message(content=content, reply_to=message)

    @server.main()
    def coordinate(grid: Grid, context: Context) -> None:
        def count_round(server_round: int, arrays: ArrayRecord) -> MetricRecord:
            if server_round:
                watch.round_ended()
            return MetricRecord()

        result = FedAvg(fraction_evaluate=0.0).start(
            grid=grid,
            initial_arrays=ArrayRecord(_Network(start).state_dict()),
            num_rounds=rounds,
            evaluate_fn=count_round,
        )
        network = _Network(start)
        network.load_state_dict(result.arrays.to_torch_state_dict())
        found.append(error(network.arrays(), standardiser, labs))
        # before Ray's processes end
        print(json.dumps(watch.row(found[0])), flush=True)

    run_simulation(server_app=server, client_app=client, num_supernodes=count)
    return found[0]


class _Network(torch.nn.Module):
    """The head as a module, with what pfl asks of one."""

    def __init__(self, head: HeadArrays) -> None:
        super().__init__()
        self.weights = torch.nn.ParameterList(torch.from_numpy(head[name].copy()) for name in head)
        self.names = list(head)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return forward(dict(zip(self.names, self.weights, strict=True)), features)

    def loss(self, features: torch.Tensor, targets: torch.Tensor, **_: Any) -> torch.Tensor:
        loss: torch.Tensor = ((self(features) - targets) ** 2).mean()
        return loss

    def metrics(self, features: torch.Tensor, targets: torch.Tensor, **_: Any) -> dict[str, Any]:
        return {}

    def arrays(self) -> HeadArrays:
        return {
            name: weight.detach().numpy().copy()
            for name, weight in zip(self.names, self.weights, strict=True)
        }


def pfl(count: int, rounds: int, watch: Stopwatch, *, fused: bool | None = None) -> float:
    """Run federated averaging by pfl's simulated backend; AdamW as it comes, or fused."""
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
    from pfl.model.pytorch import PyTorchModel

    federation = agreement(rounds)
    labs = watch.make(count, federation)
    standardiser = pooled_standardiser(labs)
    training = federation.training

    def dataset(number: int) -> Any:
        specimens = labs[number].training
        tables = (
            standardiser.features(specimens.features),
            standardiser.targets(specimens.targets),
        )
        return Dataset(raw_data=[torch.from_numpy(table) for table in tables])

    cached = cache(dataset)
    network = _Network(initial_head(federation_shapes(federation), training.seed))

    def adamw(parameters: Any, lr: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=training.weight_decay, fused=fused)

    class Clock(TrainingProcessCallback):  # type: ignore[misc]
        def after_central_iteration(self, *_: Any, **__: Any) -> tuple[bool, Any]:
            from pfl.metrics import Metrics

            watch.round_ended()
            return False, Metrics()

    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=rounds,
            evaluation_frequency=rounds + 1,
            train_cohort_size=count,
            val_cohort_size=0,
        ),
        SimulatedBackend(
            training_data=FederatedDataset(
                cached, get_user_sampler("minimize_reuse", list(range(count)))
            ),
            val_data=None,
        ),
        PyTorchModel(
            model=network,
            local_optimizer_create=adamw,
            central_optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        ),
        model_train_params=NNTrainHyperParams(
            local_num_epochs=2, local_learning_rate=training.learning_rate, local_batch_size=16
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=None),
        callbacks=[Clock()],
    )
    return error(network.arrays(), standardiser, labs)


PEERS: dict[str, Callable[[int, int, Stopwatch], float]] = {
    "Flower with Ray, its tutorials' apps": flower_tutorial,
    "Flower with Ray, crossply's apps": flower_with_ray,
    "pfl": pfl,
    "pfl, AdamW fused": partial(pfl, fused=True),
}


def main() -> None:
    """Run one row and print it."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    np.random.seed(0)
    name, count, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    watch = Stopwatch()
    rmse = PEERS[name](count, rounds, watch)
    if not name.startswith("Flower with Ray"):
        print(json.dumps(watch.row(rmse)))


if __name__ == "__main__":
    # Ray's processes find functions by the name of their module
    from benchmarks import simulation_peers

    simulation_peers.main()
