"""The optional engine OpenVINO (``pip install crossply[openvino]``) for processors."""

from __future__ import annotations

import sys
import threading
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

    It is compiled for batches of one size, and for the tiles of a call that fill none, one by one.
    Tiles of one call never share a batch with those of another, as in `client.engines.CpuEngine`.
    """

    tiles_at_once = 1

    def __init__(
        self, network: Network, tile_px: int, precision: Precision, batch_size: int
    ) -> None:
        backbone = network.backbone
        if isinstance(backbone, EfficientNetLite0):
            backbone = first_blocks_alone(backbone)
        network = Network(backbone, network.normalise, network.num_channels)
        self._batch_size = batch_size
        self._batch = _compiled(network, (batch_size, tile_px, tile_px), precision)
        self._single = _compiled(network, (1, tile_px, tile_px), precision)
        self._own = threading.local()

    def vectors(self, tiles: np.ndarray) -> np.ndarray:
        """Return the vectors of tiles; see `client.engines.Engine`."""
        batch, single = self._requests()
        whole = len(tiles) - len(tiles) % self._batch_size
        batches = np.split(tiles[:whole], range(self._batch_size, whole, self._batch_size))
        made = [_infer(batch, part) for part in batches if len(part)]
        made += [_infer(single, tile[None]) for tile in tiles[whole:]]
        return np.concatenate(made)

    def _requests(self) -> tuple[Any, Any]:
        """Return this thread's requests, for a batch and for one tile."""
        if not hasattr(self._own, "requests"):
            compiled = self._batch, self._single
            self._own.requests = tuple(model.create_infer_request() for model in compiled)
        requests: tuple[Any, Any] = self._own.requests
        return requests


def _compiled(network: Network, shape: tuple[int, int, int], precision: Precision) -> Any:
    exported = torch.export.export(network, (torch.zeros(shape),))
    model = openvino.convert_model(exported, input=list(shape))
    streams = usable_cores()
    return openvino.Core().compile_model(
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


def _infer(request: Any, tiles: np.ndarray) -> np.ndarray:
    # what comes out belongs to the request, which will write the next result there
    found: np.ndarray = request.infer([tiles], share_inputs=True, share_outputs=True)[0].copy()
    return found
