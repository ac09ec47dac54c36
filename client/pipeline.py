"""Micrographs through workers and the network, on all cores, with a bounded number under way.

Each thread has a worker process that decodes and cuts an image, waits for it, and then runs the
network on its tiles. With one thread more than cores, each core is busy, decoding or inferring, and
a GPU is fed by as many workers. (A loader with processes of its own leaves cores idle whenever it
is faster or slower than the network.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from client.engines import Engine
from client.findings import RefusedError
from client.lent_workers import LentWorkers
from client.preparation import PrepareTask
from client.workers import Worker
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
) -> Generator[Outcome, None, None]:
    """Turn micrographs into vectors, on all cores.

    Left by an exception, or closed, it ends the workers that are at work and drops what they had
    under way: whoever is told to stop need not wait for images.

    Parameters
    ----------
    jobs : iterable of SpecimenJob
        Read as the work goes on; memory does not grow with their number.
    engine : Engine
    jobs_at_once : int
        How many specimens one thread takes, whose tiles may share the engine's batches.
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
    # one more than work at once: a core whose thread waits for an image has another's tiles
    threads = usable_cores() + 1
    remaining = iter(jobs)
    work = LentWorkers()
    make = partial(_make, engine=engine, work=work, on_micrograph=on_micrograph)
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
        except BaseException:
            for future in under_way:
                future.cancel()
            work.leave()
            raise


class _Gathered:
    """Tiles that wait for the engine until they keep it busy, so that memory stays bounded.

    However many micrographs a specimen has, no more wait than keep the engine busy, and those of
    one micrograph.
    """

    def __init__(self, engine: Engine, work: LentWorkers) -> None:
        self._engine = engine
        self._work = work
        self._waiting: list[tuple[int, np.ndarray]] = []
        self._vectors: dict[int, list[np.ndarray]] = defaultdict(list)

    def add(self, row: int, tiles: np.ndarray) -> None:
        """Add the tiles of one micrograph of the specimen in some row."""
        if len(tiles):
            self._waiting.append((row, tiles))
        if sum(len(tiles) for _, tiles in self._waiting) >= self._engine.tiles_at_once:
            self.run()

    def run(self) -> None:
        """Run the engine on what waits."""
        if not self._waiting:
            return
        self._work.go_on()
        rows, tiles = zip(*self._waiting, strict=True)
        self._waiting = []
        vectors = self._engine.vectors(tiles[0] if len(tiles) == 1 else np.concatenate(tiles))
        ends = np.cumsum([len(of_one) for of_one in tiles])[:-1]
        for row, of_one in zip(rows, np.split(vectors, ends), strict=True):
            self._vectors[row].append(of_one)

    def vectors(self, row: int) -> np.ndarray:
        """Return the vectors of a specimen's tiles; there are none where none were asked for."""
        found = self._vectors.pop(row, [])
        return np.concatenate(found) if found else np.empty((0, 0), dtype=np.float32)


def _make(
    jobs: Sequence[SpecimenJob],
    *,
    engine: Engine,
    work: LentWorkers,
    on_micrograph: Callable[[], None],
) -> list[Outcome]:
    gathered = _Gathered(engine, work)
    described: list[RefusedSpecimen | np.ndarray] = []
    with work.worker() as worker:
        for job in jobs:
            described.append(_prepare(job, worker, work, gathered, on_micrograph))
    gathered.run()
    return [
        found
        if isinstance(found, RefusedSpecimen)
        else SpecimenVectors(row=job.row, tiles=gathered.vectors(job.row), descriptors=found)
        for job, found in zip(jobs, described, strict=True)
    ]


def _prepare(
    job: SpecimenJob,
    worker: Worker,
    work: LentWorkers,
    gathered: _Gathered,
    on_micrograph: Callable[[], None],
) -> np.ndarray | RefusedSpecimen:
    """Gather the tiles of a specimen's micrographs, and return their descriptors."""
    described = []
    for number, (name, task) in enumerate(zip(job.names, job.tasks, strict=True)):
        work.go_on()
        try:
            prepared = worker.run(task)
        except RefusedError as why:
            # an interrupted worker says of its image that it ends the decoder
            work.go_on()
            # those after it are not looked at, and are done with too
            for _ in job.tasks[number:]:
                on_micrograph()
            return RefusedSpecimen(row=job.row, micrograph=name, why=why)
        gathered.add(job.row, prepared.tiles)
        described.append(prepared.descriptors)
        on_micrograph()
    return np.stack(described)
