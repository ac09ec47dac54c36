"""A lab's folder becomes a lab that takes part: checked, turned into features, split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from client.dataset import load_dataset
from client.feature_store import FeatureStore, default_folder
from client.features import extract
from client.held_out import hold_out
from client.lab import Lab, split_lab
from common.federation import Federation


def open_lab(
    folder: Path,
    federation: Federation,
    name: str | None = None,
    on_micrograph: Callable[[], None] = lambda: None,
) -> Lab:
    """Read a lab's folder, extract its features, and hold out a fifth of its specimens.

    The lab is one that the released model does not name.

    Parameters
    ----------
    folder : Path
        Holds ``lab.toml``.
    federation : Federation
    name : str, optional
        Under which the lab is enrolled; the name in its folder otherwise.
    on_micrograph : callable
        Called after each micrograph, from any thread.

    Raises
    ------
    LabDataError
        If the folder is refused.
    """
    dataset = load_dataset(folder, federation)
    specimens = extract(dataset, federation, FeatureStore(default_folder()), on_micrograph)
    if name is not None:
        specimens = replace(specimens, lab=name)
    held_out = hold_out(specimens.groups, federation, specimens.lab)
    # who opens a lab for somebody asks whether it may be named
    return replace(split_lab(specimens, federation, held_out), name_in_card=False)
