"""One row of `benchmarks.simulation_speed`, in a process of its own: the task and our engines.

python -m benchmarks.simulation_task batched 100 5

Prints one line of JSON. Each lab has 64 specimens of 1280 features to train an MLP 1280-64-2 on
(two local epochs of batch 16, AdamW), and 16 that are held out. Labs' specimens are made before
the clock starts.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from client.evaluation import predict_in_units
from client.lab import Lab, split_lab
from client.specimens import Specimens
from client.training import plan_for, train_head
from common.federation import Federation
from common.garbage import unsearched
from common.head import HeadArrays, federation_shapes, initial_head
from common.seeds import seed_for
from common.standardise import Standardiser
from common.threads import one_thread
from server.rounds import RunOptions, Watcher, run_federation
from simulation.engine import make_grid

TRAINED, HELD_OUT, NUM_FEATURES, NUM_TARGETS = 64, 16, 1280, 2


def agreement(rounds: int, projection: str = "none") -> Federation:
    """Return the task as a federation file."""
    target = {"unit": "MPa", "range": [-1000, 1000]}
    return Federation.model_validate(
        {
            "name": "speed",
            "targets": {f"target {number}": target for number in range(NUM_TARGETS)},
            "imaging": {"scale": "fit"},
            "backbone": {"name": "efficientnet_lite0"},
            "head": {"hidden": [64], "dropout": 0.0, "projection": projection},
            "training": {"rounds": rounds, "local_epochs": 2, "batch_size": 16},
            "privacy": {"min_specimens": 4},
        }
    )


def make_lab(number: int, federation: Federation) -> Lab:
    """Return a lab whose targets are linear in sixteen of its features, but for noise."""
    generator = np.random.default_rng(number)
    size = TRAINED + HELD_OUT
    features = generator.standard_normal((size, NUM_FEATURES), np.float32)
    weights = np.zeros((NUM_FEATURES, NUM_TARGETS))
    weights[:16] = np.random.default_rng(10**6).normal(size=(16, NUM_TARGETS))
    noise = generator.normal(size=(size, NUM_TARGETS))
    made = Specimens(
        lab=f"lab-{number:04d}",
        ids=tuple(str(row) for row in range(size)),
        features=features,
        targets=features @ weights + 0.3 * noise,
        groups=np.arange(size),
    )
    return split_lab(made, federation, np.arange(size) >= TRAINED)


def error(head: HeadArrays, standardiser: Standardiser, labs: Sequence[Lab]) -> float:
    """Return the root mean square error over all labs' held-out specimens and targets."""
    squares = [
        (predict_in_units(head, standardiser, lab.held_out.features) - lab.held_out.targets) ** 2
        for lab in labs
    ]
    return float(np.sqrt(np.mean(squares)))


def pooled_standardiser(labs: Sequence[Lab]) -> Standardiser:
    """Return the standardiser that a run's second phase comes to."""
    federation = labs[0].federation
    return Standardiser.fit(
        np.concatenate([lab.training.features for lab in labs]),
        np.concatenate([lab.training.targets for lab in labs]),
        feature_shift=federation.feature_shift,
        feature_weight=federation.feature_weight,
        target_shift=federation.target_shift,
    )


@dataclass(kw_only=True)
class Stopwatch:
    """Wall clock and processor time of this process and those it started, but for making data.

    Those that have ended count too, once whoever started them has waited for them.
    """

    made_s: float = 0.0
    made_cpu_s: float = 0.0
    walls: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)

    def make(self, count: int, federation: Federation) -> list[Lab]:
        """Make labs, off the clock."""
        wall, cpu = time.perf_counter(), time.process_time()
        labs = [make_lab(number, federation) for number in range(count)]
        self.made_s += time.perf_counter() - wall
        self.made_cpu_s += time.process_time() - cpu
        return labs

    def round_ended(self) -> None:
        """Note the end of a round; the first counts from the start of the process."""
        ours = psutil.Process()
        self.walls.append(time.time() - ours.create_time() - self.made_s)
        self.cpus.append(sum(_cpu(one) for one in _tree(ours)) - self.made_cpu_s)

    def row(self, rmse: float) -> dict[str, float]:
        """Return what the benchmark prints of a row."""
        ours = psutil.Process()
        peak = sum(_peak_bytes(one) for one in _tree(ours))
        return {
            "round_s": median(np.diff(self.walls)),
            "round_cpu_s": median(np.diff(self.cpus)),
            "first_s": self.walls[0],
            "first_cpu_s": self.cpus[0],
            "whole_s": time.time() - ours.create_time() - self.made_s,
            "peak_mib": peak / 2**20,
            "rmse": rmse,
        }


def _tree(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    # a process's children that it has waited for are in no list of processes any more
    return float(times.user + times.system + times.children_user + times.children_system)


def _peak_bytes(process: psutil.Process) -> int:
    try:
        status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return 0
    lines = [line.split() for line in status if line.startswith("VmHWM")]
    return int(lines[0][1]) * 1024 if lines else 0


def plain_loop(count: int, rounds: int, watch: Stopwatch) -> float:
    """Train lab after lab with `train_head`, and average: what no engine can do without."""
    federation = agreement(rounds)
    labs = watch.make(count, federation)
    standardiser = pooled_standardiser(labs)
    tables = [
        (standardiser.features(lab.training.features), standardiser.targets(lab.training.targets))
        for lab in labs
    ]
    head = initial_head(federation_shapes(federation), federation.training.seed)
    for server_round in range(1, rounds + 1):
        total = {name: np.zeros_like(array) for name, array in head.items()}
        for lab, table in zip(labs, tables, strict=True):
            seed = seed_for(federation.training.seed, "train", lab.name, server_round)
            plan = plan_for(federation, epochs=2, seed=seed, proximal_mu=0.0)
            for name, array in train_head(head, *table, plan)[0].items():
                total[name] += array / len(labs)
        head = total
        watch.round_ended()
    return error(head, standardiser, labs)


def engine_run(engine: str, projection: str = "none") -> Callable[[int, int, Stopwatch], float]:
    """Return a row that runs whole rounds through one of crossply's engines."""

    def run(count: int, rounds: int, watch: Stopwatch) -> float:
        federation = agreement(rounds, projection)
        labs = watch.make(count, federation)
        grid = make_grid(engine, {lab.name: lab for lab in labs})
        watcher = Watcher(counted=lambda record: watch.round_ended())
        with unsearched():
            result = run_federation(grid, federation, RunOptions(watcher=watcher))
        return error(result.head, result.standardiser, labs)

    return run


PROJECTED = "batched, 128 components"

ROWS: dict[str, Callable[[int, int, Stopwatch], float]] = {
    "plain loop": plain_loop,
    "InProcessGrid": engine_run("inprocess"),
    "batched": engine_run("batched"),
    PROJECTED: engine_run("batched", "pca"),
}


def main() -> None:
    """Run one row and print it."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    name, count, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    watch = Stopwatch()
    with one_thread():
        rmse = ROWS[name](count, rounds, watch)
    print(json.dumps(watch.row(rmse)))


if __name__ == "__main__":
    main()
