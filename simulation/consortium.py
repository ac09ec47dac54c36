"""A folder of labs, or one pooled data set cut into virtual labs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from client.dataset import Dataset, load_dataset
from client.feature_store import FeatureStore
from client.features import extract
from client.findings import printable
from client.settings import FILE_NAME
from client.specimens import Specimens
from common.errors import ConfigurationError, LabDataError
from common.federation import FILE_NAME as AGREEMENT
from common.federation import Federation


@dataclass(frozen=True, kw_only=True)
class Consortium:
    """Labs that could train together, with their features made.

    Attributes
    ----------
    federation : Federation
    labs : tuple of Specimens
        One a lab, ordered by name.
    """

    federation: Federation
    labs: tuple[Specimens, ...]


def require_labs(folder: Path) -> None:
    """Refuse a path that is no folder of labs, with what to name in its place.

    Raises
    ------
    ConfigurationError
    """
    shown = printable(str(folder))
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ConfigurationError(
            f"{shown} {what}; name a folder of lab folders, or of one pooled data set, which holds "
            f"{AGREEMENT}"
        )
    if os.path.lexists(folder / AGREEMENT):
        return
    above = folder.absolute().parent
    if os.path.lexists(folder / FILE_NAME) and os.path.lexists(above / AGREEMENT):
        raise ConfigurationError(
            f"{shown} is the folder of one lab; name the one of all labs, {printable(str(above))}"
        )
    raise ConfigurationError(
        f"{shown} holds no {AGREEMENT}, what the labs agree on; write one there: the README shows "
        "one"
    )


def read_datasets(folder: Path, federation: Federation) -> list[Dataset]:
    """Read the labs' folders in `folder`, or `folder` itself if it is one pooled data set.

    Raises
    ------
    ConfigurationError
        If there is no ``lab.toml``, a pooled set has no ``[partition]``, or fewer than two labs
        are found.
    LabDataError
        If a lab's data is refused.
    """
    if (folder / FILE_NAME).is_file():
        return [load_dataset(folder, federation)]
    folders = sorted(path.parent for path in folder.glob(f"*/{FILE_NAME}"))
    if len(folders) < 2:
        raise ConfigurationError(
            f"{folder}: found {len(folders)} folders with a {FILE_NAME}; expected two labs or "
            f"more, or a pooled data set with its own {FILE_NAME}"
        )
    return [load_dataset(path, federation) for path in folders]


def open_consortium(
    datasets: list[Dataset],
    federation: Federation,
    store: FeatureStore,
    on_micrograph: Callable[[], None] = lambda: None,
) -> Consortium:
    """Make the features of all labs, and cut a pooled data set into its virtual labs.

    Raises
    ------
    ConfigurationError
        If two labs have one name, or a pooled data set gives fewer than two labs.
    """
    made = [extract(dataset, federation, store, on_micrograph) for dataset in datasets]
    labs = [
        lab
        for dataset, specimens, groups in zip(datasets, made, groups_across(datasets), strict=True)
        for lab in _labs_of(dataset, specimens, groups, federation.privacy.min_specimens)
    ]
    names = sorted(lab.lab for lab in labs)
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise ConfigurationError(
            f"two labs are named {', '.join(sorted(doubled))}; give each its own name in lab.toml"
        )
    if len(labs) < 2:
        raise ConfigurationError(
            f"{datasets[0].folder}: only one lab was found; a pooled data set names its virtual "
            'labs by a column: write [partition] column = "..." in lab.toml'
        )
    return Consortium(
        federation=federation, labs=tuple(sorted(labs, key=lambda specimens: specimens.lab))
    )


def groups_across(datasets: Sequence[Dataset]) -> list[np.ndarray]:
    """Give the split groups of several data sets numbers; two that share an image become one.

    Returns
    -------
    list of ndarray of shape (n_specimens,), int64
    """
    numbered: list[np.ndarray] = []
    for dataset in datasets:
        begin = max((int(groups.max()) + 1 for groups in numbered), default=0)
        numbered.append(dataset.groups + begin)
    first_with: dict[str, int] = {}
    for groups, dataset in zip(numbered, datasets, strict=True):
        for row, micrographs in enumerate(dataset.micrographs):
            for micrograph in micrographs:
                own = int(groups[row])
                first = first_with.setdefault(micrograph.sha256, own)
                if first == own:
                    continue
                for others in numbered:
                    others[others == own] = first
                # what was first seen under the number that is gone goes by the new one too
                first_with |= {sha: first for sha, group in first_with.items() if group == own}
    return numbered


def _labs_of(
    dataset: Dataset, specimens: Specimens, groups: np.ndarray, least: int
) -> list[Specimens]:
    # specimens whose micrographs turned out to be unusable have been left out
    left = np.isin(dataset.specimens, specimens.ids)
    specimens = replace(specimens, groups=groups[left])
    if dataset.partition is None:
        return [specimens]
    of_each = np.array(dataset.partition)[left]
    for name, count in Counter(dict.fromkeys(dataset.partition, 0) | Counter(of_each)).items():
        if count < least and not left.all():
            raise LabDataError(
                f"{name}: {count} specimens are left of those with a usable micrograph, fewer than "
                f"the federation's {least}; see which with: crossply lab check"
            )
    return [
        replace(specimens.take(of_each == name), lab=str(name))
        for name in sorted(set(dataset.partition))
    ]
