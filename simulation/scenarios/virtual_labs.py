"""Virtual labs of a scenario: decided on tables alone, so that what cannot be is said at once.

A data set is cut before its features are made. Its `partition` then names the virtual lab of each
specimen, and its `groups` are numbered across all data sets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from client.dataset import Dataset
from client.feature_store import FeatureStore
from client.features import features_of
from client.specimens import Specimens
from common.errors import ConfigurationError, LabDataError
from common.federation import Federation
from simulation.consortium import Consortium, groups_across
from simulation.scenarios.partition import (
    DEFAULT_ALPHA,
    DEFAULT_EXPONENT,
    dirichlet,
    iid,
    names_of_labs,
    power_law,
    require_enough,
    require_whole_groups_go_round,
)
from simulation.scenarios.possible import require_labs, require_possible
from simulation.scenarios.scenario import Scenario


def seed_of(scenario: Scenario, federation: Federation) -> int:
    """Return the one seed that all of a scenario follows from."""
    return federation.training.seed if scenario.seed is None else scenario.seed


def cut(datasets: Sequence[Dataset], federation: Federation, scenario: Scenario) -> list[Dataset]:
    """Name the virtual lab of each specimen, and number the groups of all data sets.

    Raises
    ------
    ConfigurationError
        If the scenario cannot be: too few specimens, a lab, a target or a round that is not there.
    """
    require_possible(scenario, federation)
    groups = groups_across(datasets)
    if scenario.partition == "column":
        named = _as_the_folders_say(datasets)
    else:
        named = _recut(datasets, np.concatenate(groups), federation, scenario)
    require_labs(scenario, federation, sorted({name for names in named for name in names}))
    return [
        replace(dataset, partition=tuple(names), groups=of_dataset)
        for dataset, names, of_dataset in zip(datasets, named, groups, strict=True)
    ]


def gather(
    datasets: Sequence[Dataset],
    names: Iterable[str],
    federation: Federation,
    store: FeatureStore,
    on_micrograph: Callable[[], None] = lambda: None,
) -> Consortium:
    """Make the features of data sets that have been cut, and put each virtual lab together.

    Parameters
    ----------
    datasets : sequence of Dataset
    names : iterable of str
        Of the virtual labs.
    federation, store, on_micrograph
        As for `client.features.extract`.

    Raises
    ------
    LabDataError
        If a lab has too few specimens left that have a usable micrograph.
    """
    parts: dict[str, list[Specimens]] = {name: [] for name in sorted(names)}
    for dataset in datasets:
        features, made = features_of(dataset, federation, store, on_micrograph)
        of_each = np.array(dataset.partition)[made]
        specimens = Specimens(
            lab=dataset.name,
            ids=tuple(np.array(dataset.specimens)[made].tolist()),
            features=features,
            targets=dataset.targets[made],
            groups=dataset.groups[made],
        )
        for name in sorted(set(of_each.tolist())):
            parts[name].append(specimens.take(of_each == name))
    for name, of_lab in parts.items():
        count = sum(len(part) for part in of_lab)
        if count < federation.privacy.min_specimens:
            raise LabDataError(
                f"{name}: {count} specimens are left of those with a usable micrograph, "
                f"fewer than the federation's {federation.privacy.min_specimens}; see which with: "
                "crossply lab check"
            )
    labs = tuple(_joined(name, of_lab) for name, of_lab in parts.items())
    return Consortium(federation=federation, labs=labs)


def _as_the_folders_say(datasets: Sequence[Dataset]) -> list[Sequence[str]]:
    named = [dataset.partition or (dataset.name,) * len(dataset.specimens) for dataset in datasets]
    counts = Counter(name for names in named for name in set(names))
    doubled = sorted(name for name, count in counts.items() if count > 1)
    if doubled:
        raise ConfigurationError(
            f"two labs are named {', '.join(doubled)}; give each its own name in lab.toml"
        )
    if len(counts) < 2:
        raise ConfigurationError(
            f"{datasets[0].folder}: only one lab was found; write [partition] column in lab.toml, "
            'or cut it with partition = "iid" and labs under [simulation]'
        )
    return list(named)


def _recut(
    datasets: Sequence[Dataset], groups: np.ndarray, federation: Federation, scenario: Scenario
) -> list[Sequence[str]]:
    labs, least = scenario.labs or 0, federation.privacy.min_specimens
    require_enough(len(groups), labs, least)
    seed = seed_of(scenario, federation)
    if scenario.partition == "iid":
        of_each = iid(groups, labs, seed)
    elif scenario.partition == "power_law":
        exponent = DEFAULT_EXPONENT if scenario.exponent is None else scenario.exponent
        of_each = power_law(groups, labs, exponent, least, seed)
    else:
        column = 0 if scenario.target is None else list(federation.targets).index(scenario.target)
        values = np.concatenate([dataset.targets[:, column] for dataset in datasets])
        of_each = dirichlet(groups, values, labs, scenario.alpha or DEFAULT_ALPHA, seed)
    names = names_of_labs(labs)
    require_whole_groups_go_round(of_each, names, least)
    ends = np.cumsum([len(dataset.specimens) for dataset in datasets])[:-1]
    return [[names[lab] for lab in part] for part in np.split(of_each, ends)]


def _joined(name: str, parts: Sequence[Specimens]) -> Specimens:
    # specimens of two labs may have one id
    several = len({part.lab for part in parts}) > 1
    return Specimens(
        lab=name,
        ids=tuple(f"{part.lab}/{id_}" if several else id_ for part in parts for id_ in part.ids),
        features=np.concatenate([part.features for part in parts]),
        targets=np.concatenate([part.targets for part in parts]),
        groups=np.concatenate([part.groups for part in parts]),
    )
