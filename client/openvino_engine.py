"""The optional engine OpenVINO (``pip install crossply[openvino]``) for processors."""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
import torch

from client.backbones import Network
from client.engine_choice import Precision
from common.cores import usable_cores

# OpenVINO's converter tells its maker that it was used, unless this package cannot be imported
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino  # noqa: E402

_HINTS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVinoEngine:
    """A network compiled for this processor; each calling thread has a request of its own.

    One tile at a time is as fast as several here, and makes a vector depend on its tile alone.
    """

    tiles_at_once = 1

    def __init__(self, network: Network, tile_px: int, precision: Precision) -> None:
        shape = [1, tile_px, tile_px]
        exported = torch.export.export(network, (torch.zeros(shape),))
        model = openvino.convert_model(exported, input=shape)
        streams = usable_cores()
        self._compiled = openvino.Core().compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": _HINTS[precision],
                "NUM_STREAMS": streams,
                "INFERENCE_NUM_THREADS": streams,
            },
        )
        self._own = threading.local()

    def vectors(self, tiles: np.ndarray) -> np.ndarray:
        """Return the vectors of tiles; see `client.engines.Engine`."""
        request = self._request()
        return np.concatenate([request.infer([tile[None]])[0].copy() for tile in tiles])

    def _request(self) -> Any:
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        return self._own.request
