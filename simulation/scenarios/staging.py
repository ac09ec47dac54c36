"""From data sets to the consortium that a simulation runs on, with a scenario or without one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from client.dataset import Dataset
from client.feature_store import FeatureStore
from common.federation import Federation
from simulation.consortium import Consortium, open_consortium
from simulation.scenarios.rephotographs import num_shifted, shifted
from simulation.scenarios.scenario import Scenario
from simulation.scenarios.virtual_labs import cut, gather

Counter = Callable[[str, int], Callable[[], None]]
"""Given what is counted and how many there are, returns what is called for each."""


def staged(
    datasets: list[Dataset], federation: Federation, scenario: Scenario | None
) -> list[Dataset]:
    """Return data sets cut into the labs of a scenario; as they are where there is none.

    Raises
    ------
    ConfigurationError
        If the scenario cannot be.
    """
    return datasets if scenario is None else cut(datasets, federation, scenario)


def open_staged(
    datasets: list[Dataset],
    federation: Federation,
    store: FeatureStore,
    scenario: Scenario | None,
    counter: Counter = lambda what, total: lambda: None,
) -> Consortium:
    """Make the features of data sets that are staged, and put the labs together.

    Parameters
    ----------
    datasets : list of Dataset
        As `staged` returns them.
    federation : Federation
    store : FeatureStore
    scenario : Scenario or None
    counter : callable
        For a progress bar.

    Raises
    ------
    ConfigurationError, LabDataError
        As `open_consortium`.
    """
    total = sum(len(of_one) for dataset in datasets for of_one in dataset.micrographs)
    bar = "micrographs to features"
    if scenario is None:
        return open_consortium(datasets, federation, store, counter(bar, total))
    with tempfile.TemporaryDirectory(prefix="crossply-pictures-") as folder:
        names = {name for dataset in datasets for name in dataset.partition or ()}
        taken = num_shifted(datasets, scenario)
        if taken:
            on_picture = counter("micrographs photographed again", taken)
            datasets = shifted(datasets, federation, scenario, Path(folder), on_picture)
        return gather(datasets, names, federation, store, counter(bar, total))
