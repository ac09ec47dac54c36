"""Seconds from nothing to a prediction with EfficientNet-Lite0, every process started cold.

python -m benchmarks.predict [--repeat N]

Seconds of the clock grow when the machine is busy. Beside them stand those of the processor, and
how many times as long a step took as importing torch alone did just before it (the median).
*Load*: a new interpreter imports what it needs, checks and reads a released model, and loads the
backbone. *First image* is the whole of `crossply lab predict` for one micrograph of 1280 x 960 px;
*again*, with its features kept.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from common.bundle import Model
from common.federation import Federation
from common.head import federation_shapes, initial_head
from common.intervals import CalibrationSums, score_counts
from common.provenance import Provenance
from common.release import Release
from common.standardise import Standardiser

FEDERATION = Federation.model_validate(
    {
        "name": "benchmark",
        "targets": {"tensile_strength": {"unit": "MPa", "range": [0, 3000]}},
        "imaging": {"scale": "physical", "um_per_px": 0.5},
        "backbone": {"name": "efficientnet_lite0"},
    }
)

LOAD = """
import sys
from pathlib import Path
from common.garbage import search_less
search_less()
from client.engine_choice import choose_engine
from client.engines import load_engine
from client.evaluation import predict_in_units
from common.release import load_release
federation = load_release(Path(sys.argv[1])).federation
backbone = federation.backbone
load_engine(backbone, federation.imaging.tile_px, choose_engine(backbone))
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args(arguments)
    steps: dict[str, list[tuple[float, float]]] = {
        "torch alone": [],
        "load": [],
        "first image": [],
        "again": [],
    }
    with tempfile.TemporaryDirectory(prefix="crossply-") as name:
        folder = Path(name)
        model, image = folder / "model", folder / "image.png"
        _release().write(model)
        pixels = np.random.default_rng(0).integers(1, 255, (960, 1280), dtype=np.uint8)
        image.write_bytes(cv2.imencode(".png", cv2.GaussianBlur(pixels, (5, 5), 0))[1].tobytes())
        asked = [sys.executable, "crossply.py", "lab", "predict", str(model), str(image)]
        asked += ["--um-per-px", "0.25"]
        for round_ in range(options.repeat):
            cache = str(folder / f"cache-{round_}")
            steps["torch alone"].append(_timed([sys.executable, "-c", "import torch"], cache))
            steps["load"].append(_timed([sys.executable, "-c", LOAD, str(model)], cache))
            steps["first image"].append(_timed(asked, cache))
            steps["again"].append(_timed(asked, cache))
    table = Table(title="a prediction with EfficientNet-Lite0", box=SIMPLE_HEAD)
    table.add_column("step")
    for column in ("median s", "min s", "max s", "× torch alone", "processor s"):
        table.add_column(column, justify="right")
    for step, taken in steps.items():
        times = [seconds for seconds, _ in taken]
        processor = statistics.median(seconds for _, seconds in taken)
        ratio = statistics.median(
            seconds / alone for seconds, (alone, _) in zip(times, steps["torch alone"], strict=True)
        )
        shown = (statistics.median(times), min(times), max(times), ratio, processor)
        table.add_row(step, *(f"{value:.2f}" for value in shown))
    Console(width=100).print(table)


def _timed(command: Sequence[str], cache: str) -> tuple[float, float]:
    """Return seconds by the clock, and of the processor."""
    root = Path(__file__).parents[1]
    environment = os.environ | {"CROSSPLY_CACHE": cache, "PYTHONPATH": str(root)}
    begun, before = time.perf_counter(), _processor()
    subprocess.run(command, check=True, env=environment, cwd=root, capture_output=True)
    return time.perf_counter() - begun, _processor() - before


def _processor() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _release() -> Release:
    generator = np.random.default_rng(0)
    standardiser = Standardiser.fit(
        generator.gamma(2.0, size=(50, FEDERATION.num_features)),
        generator.uniform(400, 900, (50, 1)),
        feature_shift=FEDERATION.feature_shift,
        feature_weight=FEDERATION.feature_weight,
        target_shift=FEDERATION.target_shift,
    )
    counts = score_counts(np.abs(generator.normal(0, 1, (50, 1))))
    calibration = CalibrationSums(
        counts=np.stack([counts, counts]),
        spreads=np.ones((2, 1)),
        novelty=np.zeros(counts.shape[1]),
    )
    none = np.zeros((1, 1))
    return Release(
        federation=FEDERATION,
        model=Model(
            head=initial_head(federation_shapes(FEDERATION), 0),
            standardiser=standardiser,
            fingerprint=FEDERATION.fingerprint(),
        ),
        provenance=Provenance(
            labs=("a",),
            num_examples=np.array([50.0]),
            left_out_count=none,
            left_out_squared=none,
            calibration=calibration,
        ),
    )


if __name__ == "__main__":
    main()
