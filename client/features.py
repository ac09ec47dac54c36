"""Features of specimens: micrographs -> tiles -> frozen network -> one vector a specimen.

Kept vectors are asked for first. Only where some are missing is torch imported, which takes longer
than reading thousands of kept ones.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from client.dataset import Dataset, Micrograph
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


def _warn(row: int, why: str) -> None:
    log.warning("%s; its specimen is left out", why)


@dataclass(frozen=True, kw_only=True)
class Listener:
    """What is told of the work as it goes on.

    Attributes
    ----------
    on_micrograph : callable
        Called after each micrograph, from any thread.
    on_refused : callable
        Told the row of a specimen that has no vector, and why, in a sentence.
    """

    on_micrograph: Callable[[], None]
    on_refused: Callable[[int, str], None]


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
    features, made = features_of(dataset, federation, store, on_micrograph)
    _require_enough(dataset, made, federation)
    return Specimens(
        lab=dataset.name,
        ids=tuple(np.array(dataset.specimens)[made].tolist()),
        features=features,
        targets=dataset.targets[made],
        groups=dataset.groups[made],
    )


def features_of(
    dataset: Dataset,
    federation: Federation,
    store: FeatureStore,
    on_micrograph: Callable[[], None] = lambda: None,
    on_refused: Callable[[int, str], None] = _warn,
) -> tuple[np.ndarray, np.ndarray]:
    """Make the feature vectors of a data set's specimens, however few.

    Parameters
    ----------
    dataset, federation, store, on_micrograph
        As for `extract`.
    on_refused : callable
        Told the row of a specimen that has no vector, and why, in a sentence.

    Returns
    -------
    features : ndarray of shape (n_made, federation.num_features), float32
    made : ndarray of shape (n_specimens,), bool
        Which specimens have a vector.
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
        heard = Listener(on_micrograph=on_micrograph, on_refused=on_refused)
        # closed at once where this is left by an exception, whose traceback would hold it
        with closing(_run(jobs, engine, federation.imaging, heard)) as outcomes:
            vectors |= _keep(outcomes, keys, federation, store, heard)
    made = np.array([of_specimen.are_in(vectors) for of_specimen in keys], dtype=bool)
    rows = np.flatnonzero(made).tolist()
    if not rows:
        return np.empty((0, federation.num_features), np.float32), made
    # filled row by row: of 100 000 specimens each further copy is a gigabyte
    features = np.empty((len(rows), federation.num_features), np.float32)
    for into, row in zip(features, rows, strict=True):
        np.concatenate([*keys[row].of(vectors), dataset.covariates[row]], out=into)
    return features, made


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
        has_deep = keys[row].deep in vectors
        names = () if keys[row].descriptors in vectors else federation.descriptors.names
        tasks = [task_of(image, dataset, federation) for image in dataset.micrographs[row]]
        yield SpecimenJob(
            row=row,
            names=tuple(micrograph.name for micrograph in dataset.micrographs[row]),
            tasks=tuple(
                replace(task, with_tiles=not has_deep, descriptors=names) for task in tasks
            ),
        )


def task_of(micrograph: Micrograph, dataset: Dataset, federation: Federation) -> PrepareTask:
    """Return what it takes to prepare a micrograph in full."""
    return PrepareTask(
        path=micrograph.path,
        sha256=micrograph.sha256,
        data=dataset.settings.data,
        um_per_px=micrograph.um_per_px,
        imaging=federation.imaging,
        with_tiles=True,
        descriptors=federation.descriptors.names,
    )


def _run(
    jobs: Iterator[SpecimenJob],
    engine: Engine,
    imaging: Imaging,
    heard: Listener,
) -> Generator[Outcome, None, None]:
    from client.pipeline import run_pipeline

    tiles_of_one = 1 if imaging.scale == "fit" else imaging.max_tiles
    return run_pipeline(
        jobs,
        engine,
        jobs_at_once=max(1, engine.tiles_at_once // tiles_of_one),
        on_micrograph=heard.on_micrograph,
    )


def _keep(
    outcomes: Generator[Outcome, None, None],
    keys: Sequence[Keys],
    federation: Federation,
    store: FeatureStore,
    heard: Listener,
) -> dict[str, np.ndarray]:
    """Return the vectors that come out of the pipeline, and keep them as they come."""
    from client.pipeline import RefusedSpecimen

    made: dict[str, np.ndarray] = {}
    unkept: dict[str, np.ndarray] = {}
    kept_at = time.monotonic()
    try:
        for outcome in outcomes:
            if isinstance(outcome, RefusedSpecimen):
                heard.on_refused(outcome.row, f"{outcome.micrograph}: {outcome.why}")
                continue
            vectors = _vectors_of(outcome, keys[outcome.row], federation)
            if not all(np.isfinite(vector).all() for vector in vectors.values()):
                heard.on_refused(outcome.row, "a specimen's features are not finite")
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
