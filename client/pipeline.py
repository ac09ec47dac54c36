"""Micrographs through workers and the network, on all cores, with a bounded number under way.

Each thread has a worker process that decodes and cuts an image, waits for it, and then runs the
network on its tiles. So a thread keeps one core busy, decoding or inferring, and a GPU is fed by
as many workers as there are cores. (A loader with processes of its own leaves cores idle whenever
it is faster or slower than the network.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from client.engines import Engine
from client.findings import RefusedError
from client.preparation import Prepared, PrepareTask
from client.workers import WORKERS, Worker
from common.cores import usable_cores
from common.threads import one_thread


@dataclass(frozen=True, kw_only=True)
class SpecimenJob:
    """A specimen whose micrographs are to be turned into vectors.

    Attributes
    ----------
    row : int
        Of the specimen in its data set.
    names : tuple of str
        Of its micrographs.
    tasks : tuple of PrepareTask
        One a micrograph.
    """

    row: int
    names: tuple[str, ...]
    tasks: tuple[PrepareTask, ...]


@dataclass(frozen=True, kw_only=True)
class SpecimenVectors:
    """What came of a specimen.

    Attributes
    ----------
    row : int
        Of the specimen in its data set.
    tiles : ndarray of shape (n_tiles, channels), float32
        The network's vectors of the tiles of all its micrographs; none if none were asked for.
    descriptors : ndarray of shape (n_micrographs, n_descriptors), float64
        NaN where a micrograph does not show the thing.
    """

    row: int
    tiles: np.ndarray
    descriptors: np.ndarray


@dataclass(frozen=True, kw_only=True)
class RefusedSpecimen:
    """A specimen that has no vectors, since one of its micrographs cannot be used."""

    row: int
    micrograph: str
    why: RefusedError


Outcome = SpecimenVectors | RefusedSpecimen


def run_pipeline(
    jobs: Iterable[SpecimenJob],
    engine: Engine,
    *,
    jobs_at_once: int = 1,
    on_micrograph: Callable[[], None] = lambda: None,
) -> Iterator[Outcome]:
    """Turn micrographs into vectors, on as many threads as there are cores.

    Parameters
    ----------
    jobs : iterable of SpecimenJob
        Read as the work goes on; memory does not grow with their number.
    engine : Engine
    jobs_at_once : int
        How many specimens one thread gathers before it runs the engine.
    on_micrograph : callable
        Called after each micrograph, from any thread.

    Yields
    ------
    SpecimenVectors or RefusedSpecimen
        One a job, in the order in which they are done.

    Raises
    ------
    WorkerError
        If the processes that read images cannot be started.
    """
    threads = usable_cores()
    remaining = iter(jobs)
    make = partial(_make, engine=engine, on_micrograph=on_micrograph)
    with one_thread(), ThreadPoolExecutor(threads, "pipeline") as pool:
        under_way: set[Future[list[Outcome]]] = set()
        try:
            while chunk := list(islice(remaining, jobs_at_once)):
                under_way.add(pool.submit(make, chunk))
                if len(under_way) > threads:
                    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield from future.result()
            for future in under_way:
                yield from future.result()
        finally:
            for future in under_way:
                future.cancel()


def _make(
    jobs: Sequence[SpecimenJob], *, engine: Engine, on_micrograph: Callable[[], None]
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    prepared: list[tuple[SpecimenJob, list[Prepared]]] = []
    with WORKERS.lent() as worker:
        for job in jobs:
            found = _prepare(job, worker, on_micrograph)
            if isinstance(found, RefusedSpecimen):
                outcomes.append(found)
            else:
                prepared.append((job, found))
    tiles = [image.tiles for _, images in prepared for image in images]
    vectors = _vectors(tiles, engine)
    for job, images in prepared:
        described = np.stack([image.descriptors for image in images])
        of_job = np.concatenate([next(vectors) for _ in images])
        outcomes.append(SpecimenVectors(row=job.row, tiles=of_job, descriptors=described))
    return outcomes


def _prepare(
    job: SpecimenJob, worker: Worker, on_micrograph: Callable[[], None]
) -> list[Prepared] | RefusedSpecimen:
    images = []
    for number, (name, task) in enumerate(zip(job.names, job.tasks, strict=True)):
        try:
            images.append(worker.run(task))
        except RefusedError as why:
            # those after it are not looked at, and are done with too
            for _ in job.tasks[number:]:
                on_micrograph()
            return RefusedSpecimen(row=job.row, micrograph=name, why=why)
        on_micrograph()
    return images


def _vectors(tiles: Sequence[np.ndarray], engine: Engine) -> Iterator[np.ndarray]:
    """Return the vectors of each micrograph's tiles, computed together; no tiles, no vectors."""
    if not any(map(len, tiles)):
        return iter([np.empty((0, 0), dtype=np.float32)] * len(tiles))
    ends = np.cumsum([len(of_image) for of_image in tiles])[:-1]
    return iter(np.split(engine.vectors(np.concatenate(tiles)), ends))
