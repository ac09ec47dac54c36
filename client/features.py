"""Features of specimens: micrographs -> tiles -> frozen network -> one vector a specimen.

Each micrograph goes through the network by itself, on one intra-op thread, so that its vectors
do not depend on which other micrographs are in the folder or how many threads work.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch

from client import tiles
from client.backbones import LoadedBackbone, load_backbone
from client.dataset import Dataset, Micrograph
from client.feature_cache import FeatureCache
from client.micrographs import read_micrograph
from client.specimens import Specimens
from common.errors import LabDataError
from common.federation import Federation, Imaging
from common.threads import one_thread

TILES_AT_ONCE = 4
"""Larger batches of EfficientNet-Lite0 lose time to page faults on a CPU."""

ENGINE = "torch-float32-folded"
"""Named in the cache's keys; changes when the numbers that come out change."""


def extract(
    dataset: Dataset,
    federation: Federation,
    cache: FeatureCache,
    on_micrograph: Callable[[], None] = lambda: None,
) -> Specimens:
    """Make the feature vectors of all specimens of a data set.

    Parameters
    ----------
    dataset : Dataset
    federation : Federation
    cache : FeatureCache
        Asked first for each micrograph; filled with what is computed.
    on_micrograph : callable
        Called after each micrograph, from any thread, for a progress bar.

    Returns
    -------
    Specimens
        Features of shape (n_specimens, federation.num_features).

    Raises
    ------
    LabDataError
        If a micrograph cannot be read or tiled; names the file.
    WeightsError
        If the backbone's weights are missing, altered or do not fit.
    """
    backbone = load_backbone(federation.backbone)
    micrographs = [micrograph for group in dataset.micrographs for micrograph in group]
    make = partial(_tile_vectors, dataset=dataset, federation=federation, backbone=backbone)

    def one(micrograph: Micrograph) -> np.ndarray:
        vectors = _cached(micrograph, dataset, federation, backbone, cache, make)
        on_micrograph()
        return vectors

    workers = os.cpu_count() or 1
    with one_thread(), ThreadPoolExecutor(workers) as pool:
        by_micrograph = list(pool.map(one, micrographs))
    deep = _pool_specimens(dataset, by_micrograph, federation.imaging)
    features = np.concatenate([deep, dataset.covariates], axis=1).astype(np.float32)
    return Specimens(
        lab=dataset.name,
        ids=dataset.specimens,
        features=features,
        targets=dataset.targets,
        groups=dataset.groups,
    )


def pool_tiles(vectors: np.ndarray, imaging: Imaging) -> np.ndarray:
    """Pool a specimen's tiles: the mean, then (unless a micrograph is one tile) the deviation.

    Parameters
    ----------
    vectors : ndarray of shape (n_tiles, channels), float32
    imaging : Imaging

    Returns
    -------
    ndarray of shape (channels,) with ``scale = "fit"``, else (2 * channels,); float64

    Examples
    --------
    >>> imaging = Imaging(scale="pixels")
    >>> pool_tiles(np.array([[1.0, 0.0], [3.0, 0.0]]), imaging)
    array([2., 0., 1., 0.])
    """
    wide = vectors.astype(np.float64)
    mean: np.ndarray = wide.mean(axis=0)
    return mean if imaging.scale == "fit" else np.concatenate([mean, wide.std(axis=0)])


def _pool_specimens(
    dataset: Dataset, by_micrograph: Sequence[np.ndarray], imaging: Imaging
) -> np.ndarray:
    remaining = iter(by_micrograph)
    rows = [
        pool_tiles(np.concatenate([next(remaining) for _ in group]), imaging)
        for group in dataset.micrographs
    ]
    return np.stack(rows)


def _cached(
    micrograph: Micrograph,
    dataset: Dataset,
    federation: Federation,
    backbone: LoadedBackbone,
    cache: FeatureCache,
    make: Callable[[Micrograph], np.ndarray],
) -> np.ndarray:
    key = _cache_key(micrograph, dataset, federation, backbone)
    vectors = cache.get(key)
    if vectors is None:
        vectors = make(micrograph)
        cache.put(key, vectors)
    return vectors


def _cache_key(
    micrograph: Micrograph, dataset: Dataset, federation: Federation, backbone: LoadedBackbone
) -> str:
    data = dataset.settings.data
    depends_on = {
        "image": micrograph.sha256,
        "um_per_px": micrograph.um_per_px,
        "reading": [data.bit_depth, data.intensity_range, data.page],
        "imaging": federation.imaging.model_dump(mode="json"),
        "backbone": federation.backbone.name,
        "weights": backbone.weights_sha256,
        "engine": f"{ENGINE}-{backbone.device.type}",
    }
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()


def _tile_vectors(
    micrograph: Micrograph, *, dataset: Dataset, federation: Federation, backbone: LoadedBackbone
) -> np.ndarray:
    try:
        image = read_micrograph(micrograph.path, dataset.settings.data)
        plan = tiles.plan(image.shape[0], image.shape[1], micrograph.um_per_px, federation.imaging)
    except LabDataError as error:
        raise LabDataError(f"{micrograph.name}: {error}") from error
    batches = torch.split(torch.from_numpy(tiles.cut(image, plan)), TILES_AT_ONCE)
    return torch.cat([backbone.vectors(batch) for batch in batches]).numpy()
