"""A lab that takes part: its agreement, the specimens it trains on, and those it holds out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from flwr.app import Context

from client.dataset import load_dataset
from client.feature_cache import FeatureCache, default_folder
from client.features import extract
from client.specimens import Specimens
from client.splits import fold_of_each
from common.errors import ConfigurationError
from common.federation import Federation, load_federation

HELD_OUT_FOLDS = 5
"""One fifth of the specimens is held out unless folds are asked for."""


@dataclass(frozen=True, kw_only=True)
class Lab:
    """One lab in one run.

    Attributes
    ----------
    federation : Federation
    training, held_out : Specimens
        Never share a specimen, nor a group.
    """

    federation: Federation
    training: Specimens
    held_out: Specimens

    @property
    def name(self) -> str:
        """The lab's name."""
        return self.training.lab


def split_lab(specimens: Specimens, federation: Federation, *, folds: int, fold: int) -> Lab:
    """Hold out one fold of a lab's specimens.

    Parameters
    ----------
    specimens : Specimens
    federation : Federation
    folds, fold : int
        How many folds there are, and which is held out.
    """
    of_each = fold_of_each(
        specimens.groups, folds=folds, lab=specimens.lab, seed=federation.training.seed
    )
    return Lab(
        federation=federation,
        training=specimens.take(of_each != fold),
        held_out=specimens.take(of_each == fold),
    )


def open_lab_folder(context: Context) -> Lab:
    """Open the lab that a Flower node's configuration names.

    ``lab`` is the lab's folder; ``federation`` the federation file, by default the one in it.
    """
    folder = context.node_config.get("lab")
    if not isinstance(folder, str):
        raise ConfigurationError("the node's configuration needs lab = \"the lab's folder\"")
    return _open(Path(folder), Path(str(context.node_config.get("federation", folder))))


@lru_cache(maxsize=4)
def _open(folder: Path, federation_path: Path) -> Lab:
    federation = load_federation(federation_path)
    specimens = extract(
        load_dataset(folder, federation), federation, FeatureCache(default_folder())
    )
    return split_lab(specimens, federation, folds=HELD_OUT_FOLDS, fold=0)
