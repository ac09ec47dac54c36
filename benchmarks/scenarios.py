"""What hostile labs and labs that drop out do to the shared head, strategy by strategy.

python -m benchmarks.scenarios [--data DIR] [--labs N] [--hostile N] [--rounds N] [--json FILE]

Mechanical MNIST, features of EfficientNet-Lite0 on the whole micrograph, cut at random into labs
of equal size; a fifth of the specimens is held out, and all errors are on true values. R² under
each attack of some of the labs, and where labs drop out of rounds with a probability.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from client.dataset import Dataset
from client.feature_store import FeatureStore, default_folder
from common.errors import QuorumError
from common.federation import Federation, load_federation
from simulation.consortium import Consortium, read_datasets
from simulation.experiment import run_experiment
from simulation.scenarios.partition import names_of_labs
from simulation.scenarios.scenario import Scenario
from simulation.scenarios.staging import open_staged, staged

SET = "mechanical_mnist_ue"
SHARED = Path(__file__).parents[1].parent / "shared" / "data"

ATTACKS: dict[str, dict[str, Any] | None] = {
    "nobody hostile": None,
    "sign flip": {"attack": "sign_flip"},
    "scaled by 10": {"attack": "scaled", "factor": 10.0},
    "labels times 3": {"attack": "label_scale", "factor": 3.0},
    "free riders": {"attack": "free_rider"},
    "no numbers": {"attack": "no_numbers"},
}

DROPOUTS = (0.0, 0.2, 0.4)


def strategies(num_hostile: int, num_labs: int) -> dict[str, tuple[str, ...]]:
    """Return the strategies that are compared, told how many labs may be hostile."""
    share = num_hostile / num_labs
    return {
        "fedavg": ("training.strategy=fedavg",),
        "median": ("training.strategy=median",),
        "trimmed_mean": ("training.strategy=trimmed_mean", f"training.trim_fraction={share}"),
        "krum": ("training.strategy=krum", f"training.num_malicious={num_hostile}"),
    }


def r2_of(
    datasets: list[Dataset], federation: Federation, scenario: Scenario
) -> tuple[float | None, int]:
    """Return R² of one run over all held-out specimens, and how many events it had.

    None where the run ended below its quorum.
    """
    store = FeatureStore(default_folder())
    cut = staged(datasets, federation, scenario)
    consortium: Consortium = open_staged(cut, federation, store, scenario)
    try:
        outcome = run_experiment(
            consortium, modes=("federated",), engine="batched", scenario=scenario
        )
    except QuorumError:
        return None, 0
    (target,) = federation.targets
    return outcome.metrics("federated")[target]["r2"], len(outcome.diary.events)


def measure(data: Path, labs: int, hostile: int, rounds: int) -> list[dict[str, Any]]:
    """Measure every strategy under every attack, and with every share of drop-outs."""
    folder = data / SET
    datasets = read_datasets(folder, load_federation(folder))
    villains = names_of_labs(labs)[:hostile]
    found = []
    for strategy, keys in strategies(hostile, labs).items():
        # half of the labs make a round, whoever else drops out
        common = (*keys, f"training.rounds={rounds}", "training.quorum=0.5")
        federation = load_federation(folder, common)
        tables: list[tuple[str, dict[str, Any]]] = [
            (name, {"hostile": dict.fromkeys(villains, attack) if attack else {}})
            for name, attack in ATTACKS.items()
        ]
        tables += [(f"{share:.0%} drop out", {"dropout": share}) for share in DROPOUTS if share]
        for name, table in tables:
            cut = {"partition": "iid", "labs": labs} | table
            r2, num_events = r2_of(datasets, federation, Scenario.model_validate(cut))
            row = {"strategy": strategy, "scenario": name, "r2": r2, "events": num_events}
            found.append(row)
    return found


def table(records: Sequence[dict[str, Any]], title: str) -> Table:
    """Lay out R², one row a strategy and one column a scenario."""
    shown = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    shown.add_column("strategy", no_wrap=True)
    names = list(dict.fromkeys(record["scenario"] for record in records))
    for name in names:
        shown.add_column(name, justify="right")
    for strategy in dict.fromkeys(record["strategy"] for record in records):
        of_strategy = {r["scenario"]: r["r2"] for r in records if r["strategy"] == strategy}
        shown.add_row(strategy, *(_shown(of_strategy[name]) for name in names))
    return shown


def _shown(r2: float | None) -> str:
    return "no quorum" if r2 is None else f"{r2:.3f}" if r2 > -1 else f"{r2:.1f}"


def main() -> None:
    """Measure, print the table, and write the figures if asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED, help="folder of the real sets")
    parser.add_argument("--labs", type=int, default=20)
    parser.add_argument("--hostile", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.WARNING)
    records = measure(arguments.data, arguments.labs, arguments.hostile, arguments.rounds)
    title = (
        f"R² on held-out specimens, {arguments.labs} labs, {arguments.rounds} rounds; attacks by "
        f"{arguments.hostile} of them"
    )
    Console(width=160).print(table(records, title))
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    main()
