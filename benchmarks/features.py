"""Micrographs to features: the essay's way against crossply's, each stage, and the floor.

python -m benchmarks.features [--repeat N] [--data DIR] [--backbone NAME ...] [--json FILE]

Micrographs of 1280 x 960 pixels are drawn and written as PNG; the roughness set has JPEGs of the
same size. Both ways see the same tiles with the same network and take turns; a row shows the
fastest of the runs, which other programs disturbed least. The network alone and the peaks that
shares are of count CPU seconds over cores, which they disturb hardly. The network alone has tiles
by the batch; on a GPU, whole / alone is how busy the pipeline keeps it.
Each way has a process of its own, so that its memory (the peak, VmHWM, with workers) is too.
ResNet-50 has random weights here: its speed does not depend on them.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tomli_w
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torchvision import models

from benchmarks import feature_stages as stages
from benchmarks.accuracy import SHARED
from benchmarks.small_labs import FEDERATION, write_small_lab
from client.engine_choice import EngineChoice, Precision, cpu_has_bfloat16, has_gpu
from common.cores import usable_cores
from common.federation import Backbone, Imaging
from simulation.composites import Recipe, random_section
from simulation.microscopes import Microscope, micrograph

FIT = Imaging(scale="fit", tile_px=224)
COVER = Imaging(scale="pixels", tile_px=224, max_tiles=32)
IMAGES = {("efficientnet_lite0", "fit"): 240, ("efficientnet_lite0", "pixels"): 32}
IMAGES |= {("resnet50", "fit"): 80, ("resnet50", "pixels"): 12}
"""How many micrographs a run takes: some seconds, of which one core waits for the last little."""

NETWORK_TILES = {"efficientnet_lite0": 64, "resnet50": 16}
NUM_DRAWN = 12
NUM_CACHED = 1000


def draw(folder: Path) -> list[Path]:
    """Draw micrographs of 1280 x 960 px, and return their paths."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(NUM_DRAWN):
        recipe = Recipe(fibre_fraction=0.45, voids_um=(12.0, 6.0))
        section = random_section(recipe, side=160.0, rng=rng)
        picture = micrograph(section, Microscope(num_px=1280), rng)[:960]
        paths.append(folder / f"{number:02}.png")
        cv2.imwrite(str(paths[-1]), picture)
    return paths


def choices(name: str) -> list[EngineChoice]:
    """Return the engines that this machine can run a backbone on."""
    precisions: list[Precision] = ["float32"]
    if name != "efficientnet_lite0" and cpu_has_bfloat16():
        precisions.append("bfloat16")
    found = [EngineChoice(engine="torch", device="cpu", precision=p) for p in precisions]
    if find_spec("openvino") is not None:
        found += [EngineChoice(engine="openvino", device="cpu", precision=p) for p in precisions]
    if has_gpu():
        of_gpu: list[Precision] = (
            ["float32"] if name == "efficientnet_lite0" else ["float32", "bfloat16"]
        )
        found += [EngineChoice(engine="torch", device="cuda", precision=p) for p in of_gpu]
    return found


def compare(
    backbone: Backbone, imaging: Imaging, paths: list[Path], repeat: int
) -> list[dict[str, Any]]:
    """Time the essay's way and each engine in turns, and return one row each."""
    count = IMAGES[backbone.name, imaging.scale]
    chosen = [paths[index % len(paths)] for index in range(count)]
    few = chosen[: max(1, count // 4)]
    ways: dict[str, EngineChoice | None] = {"essay": None}
    ways |= {choice.name: choice for choice in choices(backbone.name)}
    rates: dict[str, list[stages.Rate]] = {name: [] for name in ways}
    alone: dict[str, float] = {}
    with ExitStack() as stack:
        pools = {
            name: stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"))) for name in ways
        }
        for name, choice in ways.items():
            pools[name].submit(stages.run, backbone, choice, few[:2], imaging).result()
        for _ in range(repeat):
            for name, choice in ways.items():
                paths_of_way = few if choice is None else chosen
                run = pools[name].submit(stages.run, backbone, choice, paths_of_way, imaging)
                rates[name].append(run.result())
        for name, choice in ways.items():
            if choice is not None:
                count = max(NETWORK_TILES[backbone.name], 64 if choice.device == "cuda" else 0)
                done = pools[name].submit(
                    stages.network_seconds, backbone, choice, imaging.tile_px, count
                )
                alone[name] = done.result()
    flop = stages.operations(backbone, imaging.tile_px)
    rows = []
    fastest = {name: max(of_way, key=lambda rate: rate.images) for name, of_way in rates.items()}
    for name, rate in fastest.items():
        row: dict[str, Any] = dataclasses.asdict(rate)
        row |= {"backbone": backbone.name, "scale": imaging.scale, "way": name, "flop": flop}
        if name in alone:
            ratio = rate.images / fastest["essay"].images
            row |= {"network_alone": 1 / alone[name], "ratio": ratio}
        rows.append(row)
    return rows


def cached_call(repeat: int) -> list[float]:
    """Return the seconds of `crossply lab features` for 1000 specimens that are all kept."""
    with tempfile.TemporaryDirectory(prefix="crossply-") as name:
        folder = Path(name)
        write_small_lab(folder / "lab", np.random.default_rng(0), NUM_CACHED)
        (folder / "lab" / "federation.toml").write_text(tomli_w.dumps(FEDERATION))
        command = [str(Path(sys.executable).parent / "crossply"), "lab", "features"]
        environment = os.environ | {"CROSSPLY_CACHE": str(folder / "kept")}
        # digests of files are remembered once they have not changed for two seconds
        time.sleep(2.5)
        times = []
        for _ in range(repeat + 1):
            started = time.perf_counter()
            subprocess.run(
                [*command, str(folder / "lab")], check=True, env=environment, capture_output=True
            )
            times.append(time.perf_counter() - started)
        return times[1:]


def rates_table(rows: list[dict[str, Any]], peak: dict[str, float], title: str) -> Table:
    """Lay out one row a way; shares are of the best rate that this machine reached at all."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for heading in ("backbone", "tiles", "way"):
        table.add_column(heading, no_wrap=True)
    for heading in (
        "images/s", "tiles/s", "× essay", "cores busy", "share of floor",
        "network alone, tiles/s", "its share of floor", "whole / alone", "memory MB",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    for row in rows:
        precision = "bfloat16" if "bfloat16" in row["way"] else "float32"
        peak_of_row = peak[f"GPU, {precision}" if "cuda" in row["way"] else precision]
        table.add_row(
            row["backbone"],
            "one" if row["scale"] == "fit" else "30, covering",
            row["way"].rpartition("-")[0] or "the essay's",
            f"{row['images']:.1f}",
            f"{row['tiles']:.0f}",
            f"{row['ratio']:.2f}" if "ratio" in row else "1",
            f"{row['busy']:.0%}",
            _share(row["tiles"] * row["flop"], peak_of_row),
            f"{row['network_alone']:.0f}" if "network_alone" in row else "–",
            _share(row.get("network_alone", 0.0) * row["flop"], peak_of_row),
            _share(row["tiles"], row.get("network_alone", 0.0)),
            f"{row['memory']:.0f}",
        )
    return table


def _share(rate: float, peak: float) -> str:
    return f"{rate / peak:.0%}" if rate and peak else "–"


def stages_table(paths: dict[str, Path]) -> Table:
    """Lay out what one core needs for each stage before the network."""
    table = Table(title="stages before the network, ms of one core", title_justify="left",
                  box=SIMPLE_HEAD)  # fmt: skip
    table.add_column("micrograph")
    for heading in ("digest", "decode", "to one tile", "to 30 tiles", "hand 30 over"):
        table.add_column(heading, justify="right")
    cv2.setNumThreads(1)
    for name, path in paths.items():
        seconds = [
            stages.digest_seconds(path),
            stages.decode_seconds([path] * 5),
            stages.cut_seconds(path, FIT),
            stages.cut_seconds(path, COVER),
            stages.hand_over_seconds(path, COVER),
        ]
        table.add_row(name, *(f"{1e3 * value:.1f}" for value in seconds))
    return table


def measure_peaks(console: Console, before: Mapping[str, float]) -> dict[str, float]:
    """Measure and print the operations a second that this machine reaches; return the most."""
    found = dict(before)
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        if has_gpu():
            product = stages.gpu_peak_rate(dtype)
            console.print(f"GPU, {precision}: {product / 1e12:.1f} TFLOP/s in matrix products")
            found[f"GPU, {precision}"] = max(product, before.get(f"GPU, {precision}", 0.0))
        if precision == "bfloat16" and not cpu_has_bfloat16():
            console.print("bfloat16: this processor has none; its rows are left out")
            continue
        product, convolution = stages.peak_rate(dtype), stages.convolution_rate(dtype)
        console.print(
            f"{precision}: {product / 1e9:.0f} GFLOP/s in matrix products, "
            f"{convolution / 1e9:.0f} in the best convolution, on {usable_cores()} cores"
        )
        found[precision] = max(product, convolution, before.get(precision, 0.0))
    return found


def backbones(folder: Path, names: list[str]) -> list[Backbone]:
    """Return the backbones; a ResNet's weights are drawn and written to a file."""
    made = []
    for name in names:
        if name == "efficientnet_lite0":
            made.append(Backbone(name="efficientnet_lite0"))
            continue
        torch.manual_seed(0)
        path = folder / f"{name}.pth"
        torch.save(models.get_model(name, weights=None).state_dict(), path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        made.append(Backbone.model_validate({"name": name, "weights": str(path), "sha256": digest}))
    return made


def processor() -> str:
    """Return the name of this machine's processor, as far as the system tells it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "CPU"


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--data", type=Path, default=SHARED, help="folder of the real sets")
    parser.add_argument(
        "--backbone", nargs="+", default=["efficientnet_lite0", "resnet50"], dest="names",
        choices=["efficientnet_lite0", "resnet50"],
    )  # fmt: skip
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    options = parser.parse_args()
    console = Console(width=170)
    device = torch.cuda.get_device_name(0) if has_gpu() else processor()
    console.print(f"{usable_cores()} cores, {device}, torch {torch.__version__}")
    peak = measure_peaks(console, {})
    records = []
    with tempfile.TemporaryDirectory(prefix="crossply-") as name:
        drawn = draw(Path(name))
        real = sorted((options.data / "lpbf_surface_ra" / "images").glob("*.jpg"))
        sets = {"drawn, PNG": drawn, "roughness, JPEG": real} if real else {"drawn, PNG": drawn}
        console.print(stages_table({title: paths[0] for title, paths in sets.items()}))
        made = backbones(Path(name), options.names)
        for title, paths in sets.items():
            rows = [
                row
                for backbone in made
                for imaging in (FIT, COVER)
                for row in compare(backbone, imaging, paths, options.repeat)
            ]
            # other programs may have slowed the first measurement
            peak = measure_peaks(console, peak)
            console.print(rates_table(rows, peak, title))
            records += [row | {"set": title} for row in rows]
    seconds = cached_call(options.repeat)
    console.print(
        f"lab features, {NUM_CACHED} specimens, all kept, start of Python included: "
        f"median {statistics.median(seconds):.2f} s of {len(seconds)}"
    )
    if options.json:
        written = {"device": device, "peak": peak, "rates": records, "kept": seconds}
        options.json.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
