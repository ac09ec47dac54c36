"""Features of specimens: micrographs -> tiles -> frozen network -> one vector a specimen.

Kept vectors are asked for first. Only where some are missing is torch imported, which takes longer
than reading thousands of kept ones.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from client.dataset import Dataset
from client.engine_choice import EngineChoice, choose_engine
from client.feature_keys import Keys, keys_of
from client.feature_store import FeatureStore
from client.pooling import pool_descriptors, pool_tiles
from client.preparation import PrepareTask
from client.specimens import Specimens
from common.errors import LabDataError
from common.federation import Federation, Imaging

if TYPE_CHECKING:
    from client.engines import Engine
    from client.pipeline import Outcome, SpecimenJob, SpecimenVectors

log = logging.getLogger(__name__)

KEEP_EVERY_S = 5.0
"""Vectors are kept in batches; a lab that is killed loses those of the last seconds."""

Vectors = Mapping[str, np.ndarray]


def extract(
    dataset: Dataset,
    federation: Federation,
    store: FeatureStore,
    on_micrograph: Callable[[], None] = lambda: None,
) -> Specimens:
    """Make the feature vectors of all specimens of a data set.

    A specimen with a micrograph that turns out to be unusable is left out, with a warning in the
    lab's own log.

    Parameters
    ----------
    dataset : Dataset
    federation : Federation
    store : FeatureStore
        Asked first for each specimen; filled with what is made.
    on_micrograph : callable
        Called after each micrograph, from any thread, for a progress bar.

    Returns
    -------
    Specimens
        Features of shape (n_specimens, federation.num_features).

    Raises
    ------
    LabDataError
        If fewer than ``privacy.min_specimens`` are left.
    WeightsError
        If the backbone's weights are missing, altered or do not fit.
    WorkerError
        If the processes that read images cannot be started.
    """
    chosen = choose_engine(federation.backbone)
    keys, vectors, missing = _look_up(dataset, federation, store, chosen)
    engine = None
    if missing:
        from client.engines import working_engine

        works, engine = working_engine(federation.backbone, federation.imaging.tile_px)
        if works != chosen:
            keys, vectors, missing = _look_up(dataset, federation, store, works)
    for _ in range(_num_micrographs(dataset) - _num_micrographs(dataset, missing)):
        on_micrograph()
    if missing and engine is not None:
        jobs = _jobs(missing, keys, vectors, dataset, federation)
        outcomes = _run(jobs, engine, federation.imaging, on_micrograph)
        vectors |= _keep(outcomes, keys, federation, store)
    made = np.array([of_specimen.are_in(vectors) for of_specimen in keys])
    _require_enough(dataset, made, federation)
    features = np.stack([keys[row].join(vectors) for row in np.flatnonzero(made)])
    covariates = dataset.covariates[made].astype(np.float32)
    return Specimens(
        lab=dataset.name,
        ids=tuple(np.array(dataset.specimens)[made].tolist()),
        features=np.concatenate([features, covariates], axis=1),
        targets=dataset.targets[made],
        groups=dataset.groups[made],
    )


def _look_up(
    dataset: Dataset, federation: Federation, store: FeatureStore, engine: EngineChoice
) -> tuple[list[Keys], dict[str, np.ndarray], list[int]]:
    """Return the keys of all specimens, the vectors that are kept, and the rows that miss one."""
    keys = keys_of(dataset, federation, engine)
    vectors = store.get([key for of_specimen in keys for key in of_specimen.wanted])
    missing = [row for row, of_specimen in enumerate(keys) if not of_specimen.are_in(vectors)]
    return keys, vectors, missing


def _jobs(
    rows: Sequence[int],
    keys: Sequence[Keys],
    vectors: Vectors,
    dataset: Dataset,
    federation: Federation,
) -> Iterator[SpecimenJob]:
    from client.pipeline import SpecimenJob

    for row in rows:
        needs_descriptors = keys[row].descriptors not in vectors
        yield SpecimenJob(
            row=row,
            names=tuple(micrograph.name for micrograph in dataset.micrographs[row]),
            tasks=tuple(
                PrepareTask(
                    path=micrograph.path,
                    sha256=micrograph.sha256,
                    data=dataset.settings.data,
                    um_per_px=micrograph.um_per_px,
                    imaging=federation.imaging,
                    with_tiles=keys[row].deep not in vectors,
                    descriptors=federation.descriptors.names if needs_descriptors else (),
                )
                for micrograph in dataset.micrographs[row]
            ),
        )


def _run(
    jobs: Iterator[SpecimenJob],
    engine: Engine,
    imaging: Imaging,
    on_micrograph: Callable[[], None],
) -> Iterator[Outcome]:
    from client.pipeline import run_pipeline

    tiles_of_one = 1 if imaging.scale == "fit" else imaging.max_tiles
    return run_pipeline(
        jobs,
        engine,
        jobs_at_once=max(1, engine.tiles_at_once // tiles_of_one),
        on_micrograph=on_micrograph,
    )


def _keep(
    outcomes: Iterator[Outcome], keys: Sequence[Keys], federation: Federation, store: FeatureStore
) -> dict[str, np.ndarray]:
    """Return the vectors that come out of the pipeline, and keep them as they come."""
    from client.pipeline import RefusedSpecimen

    made: dict[str, np.ndarray] = {}
    unkept: dict[str, np.ndarray] = {}
    kept_at = time.monotonic()
    try:
        for outcome in outcomes:
            if isinstance(outcome, RefusedSpecimen):
                log.warning("%s: %s; its specimen is left out", outcome.micrograph, outcome.why)
                continue
            vectors = _vectors_of(outcome, keys[outcome.row], federation)
            if not all(np.isfinite(vector).all() for vector in vectors.values()):
                log.warning("a specimen's features are not finite; it is left out")
                continue
            unkept |= vectors
            if time.monotonic() - kept_at > KEEP_EVERY_S:
                store.put(unkept)
                made |= unkept
                unkept, kept_at = {}, time.monotonic()
    finally:
        store.put(unkept)
    return made | unkept


def _vectors_of(
    outcome: SpecimenVectors, keys: Keys, federation: Federation
) -> dict[str, np.ndarray]:
    """Pool what came of a specimen's micrographs; what was not asked for is empty."""
    imaging, vectors = federation.imaging, {}
    if len(outcome.tiles):
        vectors[keys.deep] = pool_tiles(outcome.tiles, imaging).astype(np.float32)
    if keys.descriptors is not None and outcome.descriptors.size:
        pooled = pool_descriptors(
            outcome.descriptors,
            federation.descriptors.names,
            has_scale=imaging.scale == "physical",
        )
        vectors[keys.descriptors] = pooled.astype(np.float32)
    return vectors


def _num_micrographs(dataset: Dataset, rows: Sequence[int] | None = None) -> int:
    chosen = range(len(dataset.micrographs)) if rows is None else rows
    return sum(len(dataset.micrographs[row]) for row in chosen)


def _require_enough(dataset: Dataset, made: np.ndarray, federation: Federation) -> None:
    least = federation.privacy.min_specimens
    if not made.all() and made.sum() < least:
        raise LabDataError(
            f"{dataset.name}: {(~made).sum()} specimens are left out for their micrographs, and "
            f"the {made.sum()} left are fewer than the federation's {least}; see them with: "
            "crossply lab check"
        )
