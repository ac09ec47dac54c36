"""What `benchmarks.features` times: the essay's way, each stage alone, the peak, the pipeline."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from client import frames, tiles
from client.backbones import Network, plain_network
from client.engine_choice import EngineChoice
from client.engines import Engine, load_engine
from client.micrographs import read_micrograph
from client.pipeline import SpecimenJob, SpecimenVectors, run_pipeline
from client.preparation import PrepareTask
from client.reading.checksums import sha256_of
from client.settings import Data
from common.cores import usable_cores
from common.federation import Backbone, Imaging
from common.threads import one_thread

DATA = Data(table="t.csv", images=".", specimen="id", image="{id}.png")
MATRIX = 1024
GPU_MATRIX = 8192


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How fast something was: images and tiles a second, and what it used meanwhile.

    Attributes
    ----------
    images, tiles : float
        A second of wall-clock time.
    busy : float
        CPU seconds a second, over the number of cores: 1 where none was ever idle.
    memory : float
        Peak of the resident memory of the process and of each of its workers (VmHWM), in MB.
    """

    images: float
    tiles: float
    busy: float
    memory: float


def essay(network: Network, paths: Sequence[Path], imaging: Imaging) -> int:
    """Do it the essay's way: one tile at a time, decoded by Pillow, torch as it comes.

    Returns the number of tiles.
    """
    count = 0
    for path in paths:
        with Image.open(path) as image:
            grey = np.asarray(image.convert("L"), dtype=np.float32) / 255
        plan = tiles.plan(grey.shape[0], grey.shape[1], None, imaging)
        for tile in tiles.cut(grey, plan):
            with torch.no_grad():
                network(torch.from_numpy(tile[None])).numpy()
            count += 1
    return count


def pipeline(engine: Engine, paths: Sequence[Path], imaging: Imaging) -> int:
    """Do it as a lab does, from files on; return the number of tiles."""
    tasks = (
        PrepareTask(path=path, sha256=_digest(path), data=DATA, imaging=imaging) for path in paths
    )
    jobs = (
        SpecimenJob(row=row, names=(task.path.name,), tasks=(task,))
        for row, task in enumerate(tasks)
    )
    tiles_of_one = 1 if imaging.scale == "fit" else imaging.max_tiles
    at_once = max(1, engine.tiles_at_once // tiles_of_one)
    outcomes = list(run_pipeline(jobs, engine, jobs_at_once=at_once))
    assert all(isinstance(outcome, SpecimenVectors) for outcome in outcomes), outcomes
    return sum(len(outcome.tiles) for outcome in outcomes if isinstance(outcome, SpecimenVectors))


def run(
    backbone: Backbone, choice: EngineChoice | None, paths: Sequence[Path], imaging: Imaging
) -> Rate:
    """Do it one way, the essay's where no engine is chosen, and tell how fast it was."""
    if choice is None:
        network = _plain(backbone)
        return measure(lambda: essay(network, paths, imaging), len(paths))
    engine = load_engine(backbone, imaging.tile_px, choice)
    return measure(lambda: pipeline(engine, paths, imaging), len(paths))


def measure(work: Callable[[], int], num_images: int) -> Rate:
    """Do some work, which returns its number of tiles, and tell how fast it was."""
    process = psutil.Process()
    for member in (process, *process.children(recursive=True)):
        # 5 resets the peak: what was loaded before is in it, what was needed before is not
        Path(f"/proc/{member.pid}/clear_refs").write_text("5")
    before, started = _cpu_seconds(process), time.perf_counter()
    count = work()
    wall = time.perf_counter() - started
    family = [process, *process.children(recursive=True)]
    return Rate(
        images=num_images / wall,
        tiles=count / wall,
        busy=(_cpu_seconds(process) - before) / wall / usable_cores(),
        memory=sum(map(_peak_bytes, family)) / 1e6,
    )


def decode_seconds(paths: Sequence[Path]) -> float:
    """Return the seconds of one core to decode one image."""
    return _seconds(lambda: [read_micrograph(path, DATA) for path in paths]) / len(paths)


def cut_seconds(path: Path, imaging: Imaging) -> float:
    """Return the seconds of one core to resample an image and cut it into its tiles."""
    grey = read_micrograph(path, DATA)
    plan = tiles.plan(grey.shape[0], grey.shape[1], None, imaging)
    return _seconds(lambda: [tiles.cut(grey, plan) for _ in range(5)]) / 5


def digest_seconds(path: Path) -> float:
    """Return the seconds of one core to compare an image's bytes with those that were checked."""
    return _seconds(lambda: [sha256_of(path) for _ in range(5)]) / 5


def hand_over_seconds(path: Path, imaging: Imaging) -> float:
    """Return the seconds of both sides to send an image's tiles from a worker to the lab."""
    prepared = PrepareTask(path=path, sha256=_digest(path), data=DATA, imaging=imaging).run()
    here, there = socket.socketpair()
    with here, there, ThreadPoolExecutor(1) as pool:

        def hand_over() -> None:
            for _ in range(5):
                sent = pool.submit(frames.send, here, prepared)
                frames.receive(there)
                sent.result()

        return _seconds(hand_over) / 5


def network_seconds(backbone: Backbone, choice: EngineChoice, tile_px: int, count: int) -> float:
    """Return the seconds of one tile where all cores work, or all threads feed a GPU."""
    engine = load_engine(backbone, tile_px, choice)
    measured = _seconds if choice.device == "cuda" else _core_seconds
    cut = np.random.default_rng(0).random((count, tile_px, tile_px), dtype=np.float32)
    threads = usable_cores()
    with one_thread(), ThreadPoolExecutor(threads) as pool:
        list(pool.map(engine.vectors, [cut[:8]] * threads))
        return measured(lambda: list(pool.map(engine.vectors, [cut] * threads))) / count / threads


def operations(backbone: Backbone, tile_px: int) -> float:
    """Return the floating-point operations of one tile, in the network as it was published."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        plain_network(backbone)(torch.zeros(1, tile_px, tile_px))
    return float(counter.get_total_flops())


def peak_rate(dtype: torch.dtype) -> float:
    """Return the operations a second of square matrix products, one on each core at once."""
    threads = usable_cores()

    def multiply(seed: int) -> None:
        left = torch.randn(MATRIX, MATRIX).to(dtype)
        for _ in range(8):
            torch.mm(left, left)

    with one_thread(), ThreadPoolExecutor(threads) as pool:
        list(pool.map(multiply, range(threads)))
        seconds = _core_seconds(lambda: list(pool.map(multiply, range(threads))))
    return 8 * threads * 2 * MATRIX**3 / seconds


def gpu_peak_rate(dtype: torch.dtype) -> float:
    """Return the operations a second of large square matrix products on all GPUs together."""
    total = 0.0
    for index in range(torch.cuda.device_count()):
        left = torch.randn(GPU_MATRIX, GPU_MATRIX, device=f"cuda:{index}").to(dtype)
        torch.mm(left, left)
        torch.cuda.synchronize(index)
        begun = time.perf_counter()
        for _ in range(8):
            torch.mm(left, left)
        torch.cuda.synchronize(index)
        total += 8 * 2 * GPU_MATRIX**3 / (time.perf_counter() - begun)
    return total


def convolution_rate(dtype: torch.dtype) -> float:
    """Return the operations a second of the best of some convolutions of a ResNet-50."""
    threads, best = usable_cores(), 0.0
    for channels, side, kernel in ((64, 56, 3), (128, 28, 3), (256, 14, 3), (256, 56, 1)):
        image = torch.randn(4, channels, side, side).to(dtype, memory_format=torch.channels_last)
        weight = torch.randn(channels, channels, kernel, kernel).to(dtype)
        weight = weight.contiguous(memory_format=torch.channels_last)

        def convolve(
            _: int, x: torch.Tensor = image, w: torch.Tensor = weight, pad: int = kernel // 2
        ) -> None:
            with torch.inference_mode():
                for _ in range(10):
                    torch.nn.functional.conv2d(x, w, padding=pad)

        with one_thread(), ThreadPoolExecutor(threads) as pool:
            list(pool.map(convolve, range(threads)))
            seconds = _core_seconds(partial(_on_all, pool, convolve, threads))
        count = 2 * 10 * threads * 4 * (channels * side * kernel) ** 2
        best = max(best, count / seconds)
    return best


def _on_all(pool: ThreadPoolExecutor, work: Callable[[int], None], threads: int) -> None:
    list(pool.map(work, range(threads)))


@lru_cache
def _digest(path: Path) -> str:
    # as at a lab, which knows the digests of its files before it makes features
    return sha256_of(path)


@lru_cache
def _plain(backbone: Backbone) -> Network:
    return plain_network(backbone)


def _peak_bytes(process: psutil.Process) -> int:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return 1024 * int(peak)


def _core_seconds(work: Callable[[], object]) -> float:
    """CPU seconds over cores: what work that keeps all busy takes where no other program runs."""
    return _seconds(work, time.process_time) / usable_cores()


def _seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    times = []
    for _ in range(5):
        started = clock()
        work()
        times.append(clock() - started)
    # the one that other programs disturbed least
    return min(times)


def _cpu_seconds(process: psutil.Process) -> float:
    family = [process, *process.children(recursive=True)]
    return sum(sum(member.cpu_times()[:2]) for member in family)
