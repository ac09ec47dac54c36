"""The optional engine OpenVINO (``pip install crossply[openvino]``) for processors."""

from __future__ import annotations

import sys
import threading
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from client.backbones import Network
from client.efficientnet_lite import EfficientNetLite0, first_blocks_alone
from client.engine_choice import Precision
from common.cores import usable_cores

# OpenVINO's converter tells its maker that it was used, unless this package cannot be imported
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino  # noqa: E402

_HINTS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVinoEngine:
    """A network compiled for this processor; each calling thread has requests of its own.

    It is compiled for single tiles, and, once as many are given, for batches; what a call has over
    goes one by one. Tiles of one call never share a batch with those of another, as in
    `client.engines.CpuEngine`.
    """

    tiles_at_once = 1

    def __init__(
        self, network: Network, tile_px: int, precision: Precision, batch_size: int
    ) -> None:
        backbone = network.backbone
        if isinstance(backbone, EfficientNetLite0):
            backbone = first_blocks_alone(backbone)
        self._network = Network(backbone, network.normalise, network.num_channels)
        self._tile_px, self._precision = tile_px, precision
        self._batch_size = batch_size
        self._compiled: dict[int, Any] = {}
        self._compiling = threading.Lock()
        self._own = threading.local()
        # one that does not work is found when it is loaded
        self._model(1)

    def vectors(self, tiles: np.ndarray) -> np.ndarray:
        """Return the vectors of tiles; see `client.engines.Engine`."""
        made, done = [], 0
        while done < len(tiles):
            size = self._batch_size if len(tiles) - done >= self._batch_size else 1
            made.append(_infer(self._request(size), tiles[done : done + size]))
            done += size
        return np.concatenate(made)

    def _request(self, size: int) -> Any:
        """Return this thread's request for so many tiles at once."""
        requests: dict[int, Any] = self._own.__dict__.setdefault("requests", {})
        if size not in requests:
            requests[size] = self._model(size).create_infer_request()
        return requests[size]

    def _model(self, size: int) -> Any:
        with self._compiling:
            if size not in self._compiled:
                shape = (size, self._tile_px, self._tile_px)
                self._compiled[size] = _compile(self._network, shape, self._precision)
            return self._compiled[size]


def _compile(network: Network, shape: tuple[int, int, int], precision: Precision) -> Any:
    exported = torch.export.export(network, (torch.zeros(shape),))
    model = openvino.convert_model(exported, input=list(shape))
    streams = usable_cores()
    return _core().compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
            # a thread that is bound to a core waits there for the decoder that took it
            "ENABLE_CPU_PINNING": False,
        },
    )


@lru_cache(maxsize=1)
def _core() -> Any:
    """Return the one core of this process, which is never freed.

    On processors with AMX each has the thread that makes it handle signals on a stack of the
    core's own. Of two that are freed in the order in which they were made, the second hands back
    the first one's, which is gone: the next signal would crash the process.
    """
    return openvino.Core()


def _infer(request: Any, tiles: np.ndarray) -> np.ndarray:
    # what comes out belongs to the request, which will write the next result there
    found: np.ndarray = request.infer([tiles], share_inputs=True, share_outputs=True)[0].copy()
    return found
