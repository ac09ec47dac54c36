"""A released model as a folder: all that predicts with it, its card, and checksums.

The coordinator and every lab write the same bytes, each from the same few arrays
(`common.messages.ReleaseRequest`), and whoever writes again writes the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tomli_w
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from common.bundle import FILE_NAME as MODEL_FILE
from common.bundle import Model
from common.errors import ConfigurationError, StateError
from common.federation import FILE_NAME as FEDERATION_FILE
from common.federation import Federation, parse_federation
from common.intervals import GRID, LEVELS, Intervals
from common.novelty import Novelty
from common.provenance import Provenance
from common.release_check import (
    naming,
    require_head,
    require_intervals,
    require_novelty,
    require_standardiser,
)
from common.sealed import SUMS, read_sealed, sums_of, write_sealed

if TYPE_CHECKING:
    # torch comes with it
    from common.head import HeadArrays

INTERVALS_FILE, NOVELTY_FILE = "intervals.safetensors", "novelty.safetensors"
CARD_FILE, VERSIONS_FILE = "card.md", "versions.json"

FORMAT = 2
"""Counts up when folders of one crossply can no longer be read by another."""

WEIGHTS_FILE = "backbone.pth"
"""Where a backbone's own weights are looked for, if the federation has any: they may be large, or
not ours to give, and are not part of the folder. Their SHA-256 stands in the federation file."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """What is released: the model, what is known of it, and what it is used with.

    Attributes
    ----------
    novelty : Novelty or None
        None where no lab let its sums of products leave it.
    baseline : mapping of name to ndarray, or None
        The linear head of ridge regression: reports compare with it, and it is no part of the
        folder.
    """

    federation: Federation
    model: Model
    provenance: Provenance
    novelty: Novelty | None = None
    baseline: HeadArrays | None = None

    @cached_property
    def files(self) -> dict[str, bytes]:
        """The folder's files but its checksums, by name: the same bytes whenever they are made."""
        from common.card import card

        versions = {"crossply": version("crossply"), "format": FORMAT}
        files = {
            MODEL_FILE: self.model.to_bytes(),
            FEDERATION_FILE: federation_text(self.federation).encode(),
            CARD_FILE: card(self.federation, self.provenance, self.novelty).encode(),
            VERSIONS_FILE: (json.dumps(versions, indent=2) + "\n").encode(),
        }
        if (calibration := self.provenance.calibration) is not None:
            counts = calibration.counts.sum(axis=0)
            files[INTERVALS_FILE] = intervals_bytes(Intervals.calibrated(counts))
        if self.novelty is not None:
            arrays = {name: np.ascontiguousarray(a) for name, a in self.novelty.arrays().items()}
            files[NOVELTY_FILE] = save_tensors(arrays)
        return files

    @property
    def digest(self) -> str:
        """SHA-256 of the folder's checksums, which names this release and no other."""
        return hashlib.sha256(sums_of(self.files)).hexdigest()

    def is_in(self, folder: Path) -> bool:
        """Return whether a folder holds this very release, whole."""
        try:
            return read_sealed(folder) == self.files
        except StateError:
            return False

    def write(self, folder: Path) -> None:
        """Write the folder, whole or not at all.

        Raises
        ------
        StateError
            If it cannot be written, for want of space or rights.
        """
        write_sealed(folder, self.files)


@dataclass(frozen=True, kw_only=True)
class ReleasedModel:
    """A released model as it is used.

    Attributes
    ----------
    intervals : Intervals or None
        None where no lab told counts of scores.
    novelty : Novelty or None
        None where no lab told sums of products.
    digest : str
        SHA-256 of the folder's checksums.
    """

    federation: Federation
    model: Model
    intervals: Intervals | None
    novelty: Novelty | None
    digest: str


def load_release(folder: Path) -> ReleasedModel:
    """Read a released model, and check it against its checksums and its federation.

    Raises
    ------
    StateError
        If a file is missing or altered, of another version's format, or does not fit the
        federation file beside it.
    """
    files = read_sealed(folder)
    missing = {MODEL_FILE, FEDERATION_FILE, VERSIONS_FILE} - set(files)
    if missing:
        raise StateError(f"{folder} is no released model: {SUMS} does not list {min(missing)}")
    with _readable(folder):
        found = json.loads(files[VERSIONS_FILE])
        if found["format"] != FORMAT:
            raise StateError(
                f"{folder} was written by crossply {str(found['crossply'])[:20]!r} in another "
                "format; use that version"
            )
        text, source = files[FEDERATION_FILE].decode(), str(folder / FEDERATION_FILE)
        federation = _with_weights(parse_federation(text, source), folder)
        model = Model.from_bytes(files[MODEL_FILE], folder / MODEL_FILE)
    if model.fingerprint != federation.fingerprint():
        raise StateError(f"{folder}: the model was trained under another {FEDERATION_FILE}")
    with naming(folder / MODEL_FILE):
        require_head(model.head, federation)
        require_standardiser(model.standardiser, federation)
    return ReleasedModel(
        federation=federation,
        model=model,
        intervals=_intervals(files, folder, federation),
        novelty=_novelty(files, folder, federation),
        digest=hashlib.sha256(sums_of(files)).hexdigest(),
    )


def _intervals(
    files: Mapping[str, bytes], folder: Path, federation: Federation
) -> Intervals | None:
    if INTERVALS_FILE not in files:
        return None
    with _readable(folder):
        found = read_intervals(files[INTERVALS_FILE])
    with naming(folder / INTERVALS_FILE):
        require_intervals(found, len(federation.targets))
    return found


def _novelty(files: Mapping[str, bytes], folder: Path, federation: Federation) -> Novelty | None:
    if NOVELTY_FILE not in files:
        return None
    with _readable(folder):
        arrays = load_tensors(files[NOVELTY_FILE])
    with naming(folder / NOVELTY_FILE):
        require_novelty(arrays, federation)
    return Novelty.from_arrays(arrays)


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Say of files that cannot be read in the block that they are another version's."""
    try:
        yield
    except (
        ConfigurationError,
        KeyError,
        RecursionError,
        SafetensorError,
        TypeError,
        ValueError,
    ) as error:
        raise StateError(
            f"{folder} was written by another version of crossply, or altered; ask whoever "
            "released it"
        ) from error


def intervals_bytes(intervals: Intervals, **metadata: str) -> bytes:
    """Return a file of intervals: quantiles, for which levels, and the grid they are taken on."""
    arrays = {"quantile": intervals.quantile, "levels": np.array(LEVELS), "grid": GRID}
    held = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return save_tensors(held, metadata=metadata or None)


def read_intervals(content: bytes) -> Intervals:
    """Read a file of intervals.

    Raises
    ------
    ValueError, KeyError, SafetensorError
        If it is none.
    """
    arrays = load_tensors(content)
    if not np.array_equal(arrays["levels"], np.array(LEVELS)):
        raise ValueError("intervals for other levels")
    return Intervals(quantile=arrays["quantile"])


def federation_text(federation: Federation) -> str:
    """Return the federation file, with every default written out, and no path of anybody's."""
    data = federation.model_dump(mode="json", exclude_none=True)
    if federation.backbone.sha256 is not None:
        data["backbone"]["weights"] = WEIGHTS_FILE
    return tomli_w.dumps(data)


def _with_weights(federation: Federation, folder: Path) -> Federation:
    backbone = federation.backbone
    if backbone.sha256 is None:
        return federation
    weights = str(folder.absolute() / backbone.weights)
    return federation.replace(backbone=backbone.replace(weights=weights).model_dump())
