"""Keys of kept features: the SHA-256 of all that a vector follows from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from client.dataset import Dataset
from client.engine_choice import EngineChoice
from client.weights_identity import weights_identity
from common.federation import Federation

DESCRIPTORS_REVISION = 2
"""Counts up when a descriptor's numbers change."""

READING = ("bit_depth", "intensity_range", "page", "crop_bottom")
"""Keys of ``[data]`` in ``lab.toml`` that decide which grey values a file stands for."""

READERS = ("opencv-python", "pillow", "tifffile")
"""Libraries that decode and resample."""

DESCRIBERS = ("scikit-image", "scipy", "structure-tensor")
"""Libraries that descriptors are measured with, beside OpenCV."""


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Under which keys the vectors of one specimen are kept.

    Attributes
    ----------
    deep : str
    descriptors : str or None
        None where the federation asks for none.
    """

    deep: str
    descriptors: str | None

    @property
    def wanted(self) -> list[str]:
        """The keys of what its features are made of, in their order."""
        return [self.deep] if self.descriptors is None else [self.deep, self.descriptors]

    def are_in(self, vectors: Container[str]) -> bool:
        """Tell whether nothing is missing."""
        return all(key in vectors for key in self.wanted)

    def of(self, vectors: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return the specimen's own vectors: deep features, then descriptors."""
        return [vectors[key] for key in self.wanted]


def keys_of(dataset: Dataset, federation: Federation, engine: EngineChoice) -> list[Keys]:
    """Return the keys of each specimen's vectors, where an engine makes them.

    Raises
    ------
    WeightsError
        If a file of weights is missing.
    """
    data = dataset.settings.data
    read_as = {
        "reading": {name: getattr(data, name) for name in READING},
        "imaging": federation.imaging.model_dump(mode="json"),
        "readers": _versions(READERS),
    }
    runners = ("torch", "openvino") if engine.engine == "openvino" else ("torch",)
    deep = read_as | {
        "backbone": federation.backbone.name,
        "weights": weights_identity(federation.backbone),
        "engine": engine.name,
        "runners": _versions(runners),
    }
    names = federation.descriptors.names
    described = read_as | {
        "descriptors": names,
        "revision": DESCRIPTORS_REVISION,
        "describers": _versions(DESCRIBERS),
    }
    keys = []
    for micrographs in dataset.micrographs:
        images = {"images": sorted(f"{image.sha256} {image.um_per_px}" for image in micrographs)}
        keys.append(
            Keys(
                deep=_digest(deep | images),
                descriptors=_digest(described | images) if names else None,
            )
        )
    return keys


def _versions(libraries: Iterable[str]) -> dict[str, str]:
    """Return the versions of libraries, read beside them: importing torch takes seconds."""
    return {library: _version(library) for library in libraries}


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        # built or packaged by somebody else, under another name
        return "unknown"


def _digest(depends_on: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()
