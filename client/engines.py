"""Engines: what runs a frozen network on tiles, on the hardware that a lab has.

Each gives the vectors of `client.backbones.plain_network` within rounding; the reference set of
``client/reference.py`` says so at each lab. All may be called from several threads at once.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from functools import lru_cache
from itertools import count
from typing import Protocol

import numpy as np
import torch

from client.backbones import Network, fast_network
from client.engine_choice import EngineChoice, Precision, choose_engine
from client.fused_network import fuse
from common.errors import EngineError
from common.federation import Backbone
from common.threads import one_thread

log = logging.getLogger(__name__)

CPU_TILES_AT_ONCE = 8
"""Layers with many weights read them once for all of them; more hold memory and win nothing."""

GPU_TILES_AT_ONCE = 64


class Engine(Protocol):
    """Something that turns tiles into vectors.

    Attributes
    ----------
    tiles_at_once : int
        How many tiles keep it busy: callers with fewer gather those of several specimens.
    """

    tiles_at_once: int

    def vectors(self, tiles: np.ndarray) -> np.ndarray:
        """Return the vectors of tiles.

        Parameters
        ----------
        tiles : ndarray of shape (n_tiles, tile_px, tile_px), float32 in [0, 1]

        Returns
        -------
        ndarray of shape (n_tiles, channels), float32
        """
        ...


def working_engine(backbone: Backbone, tile_px: int) -> tuple[EngineChoice, Engine]:
    """Load the engine that was chosen for this machine, or torch where it does not work.

    Only torch is sure to be there whole, and an agreement that allows another engine allows torch.

    Raises
    ------
    WeightsError
        If weights are missing, altered (SHA-256) or belong to another network.
    """
    choice = choose_engine(backbone)
    try:
        return choice, load_engine(backbone, tile_px, choice)
    except EngineError as error:
        log.warning("%s; torch is used until then", error)
    choice = dataclasses.replace(choice, engine="torch")
    return choice, load_engine(backbone, tile_px, choice)


@lru_cache(maxsize=2)
def load_engine(backbone: Backbone, tile_px: int, choice: EngineChoice) -> Engine:
    """Load an engine with a backbone, for tiles of one size.

    Raises
    ------
    WeightsError
        If weights are missing, altered (SHA-256) or belong to another network.
    EngineError
        If the engine is installed, and does not work.
    """
    # tensors are small: threads would wait for each other for longer than they copy
    with one_thread():
        network = fast_network(backbone, tile_px)
        if choice.engine == "torch" and choice.device == "cpu":
            return CpuEngine(_for_processor(network, tile_px, _dtype(choice)))
    if choice.engine == "openvino":
        return _load_openvino(network, tile_px, choice.precision)
    return CudaEngine(network, _dtype(choice))


def _dtype(choice: EngineChoice) -> torch.dtype:
    return torch.bfloat16 if choice.precision == "bfloat16" else torch.float32


def _for_processor(network: Network, tile_px: int, dtype: torch.dtype) -> Network:
    plain = network if dtype == network.dtype else network.on(torch.device("cpu"), dtype)
    try:
        return fuse(plain, tile_px, CPU_TILES_AT_ONCE)
    except (RuntimeError, AttributeError, TypeError) as error:
        # steps that torch makes for its own compiler, and may rename
        log.warning("torch lacks its fused convolutions, and takes twice as long (%s)", error)
        return plain


def _load_openvino(network: Network, tile_px: int, precision: Precision) -> Engine:
    try:
        from client.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(network, tile_px, precision, CPU_TILES_AT_ONCE)
    except Exception as error:
        # a library that is half there, or made for another processor, may raise anything
        raise EngineError(
            f"OpenVINO is installed and does not work ({type(error).__name__}: {error}); install "
            "it again: pip install --force-reinstall openvino"
        ) from error


class CpuEngine:
    """Torch on the processor: each calling thread works by itself, on few tiles at a time.

    Tiles of one call never share a batch with those of another, so that vectors do not depend on
    what else is in the folder, to the bit.
    """

    tiles_at_once = 1

    def __init__(self, network: Network) -> None:
        self._network = network

    def vectors(self, tiles: np.ndarray) -> np.ndarray:
        """Return the vectors of tiles; see `Engine`."""
        with torch.inference_mode():
            batches = torch.split(torch.from_numpy(tiles), CPU_TILES_AT_ONCE)
            return torch.cat([self._network(batch) for batch in batches]).numpy()


class CudaEngine:
    """Torch on GPUs: calling threads are dealt out to them, each with a stream of its own.

    While one thread's tiles are computed, another's are copied: from pinned memory, without
    waiting.
    """

    tiles_at_once = GPU_TILES_AT_ONCE

    def __init__(self, network: Network, dtype: torch.dtype) -> None:
        # TensorFloat-32 would make the features of a GPU differ from those of a CPU by 1e-3
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        self._networks = [
            network.on(torch.device("cuda", index), dtype)
            for index in range(torch.cuda.device_count())
        ]
        self._turn = count()
        self._own = threading.local()

    def vectors(self, tiles: np.ndarray) -> np.ndarray:
        """Return the vectors of tiles; see `Engine`."""
        device, stream = self._lane()
        target = torch.device("cuda", device)
        with torch.inference_mode(), torch.cuda.stream(stream):
            pinned = torch.from_numpy(tiles).pin_memory()
            outputs = [
                self._networks[device](batch.to(target, non_blocking=True))
                for batch in torch.split(pinned, GPU_TILES_AT_ONCE)
            ]
            vectors = torch.cat(outputs).to("cpu", non_blocking=True)
            # the copies back and from pinned memory are done when the stream is
            stream.synchronize()
            return vectors.numpy()

    def _lane(self) -> tuple[int, torch.cuda.Stream]:
        """Return this thread's GPU and stream."""
        if not hasattr(self._own, "lane"):
            device = next(self._turn) % len(self._networks)
            self._own.lane = device, torch.cuda.Stream(device=device)  # type: ignore[no-untyped-call]
        lane: tuple[int, torch.cuda.Stream] = self._own.lane
        return lane
