"""The demo: folders of six virtual labs, each with its own process, microscope and habits.

Every specimen is a section that `composites` draws. Its modulus is solved by `homogenisation`,
its strength follows from its largest defect by `strength`, and what the lab stores of it is the
picture that its own microscope takes. Nothing about a property is put into a picture otherwise.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import date, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tomli_w

from common import federation
from common.errors import ConfigurationError
from simulation.composites import random_section, rasterise
from simulation.homogenisation import effective_stiffness, pixel_moduli, transverse_modulus
from simulation.laboratories import (
    COLUMNS,
    FEDERATION,
    IN_UNIT,
    LABS,
    SIDE_UM,
    Laboratory,
)
from simulation.microscopes import micrograph, save
from simulation.strength import largest_defect_um, transverse_strength

SOLVER_PX = 135
SOLVER_TOLERANCE = 1e-3
STRENGTH_SCATTER = 0.035
MODULUS_SCATTER = 0.01
MAX_WORKERS = 8
MARKER = ".crossply-demo"
TABLE = "MacroProperties.csv"
IMAGES = "MicroscaleImages"


def num_specimens(labs: Sequence[Laboratory] = LABS) -> int:
    """Return how many specimens the demo has, for a progress bar.

    Examples
    --------
    >>> num_specimens()
    178
    """
    return sum(lab.num_specimens for lab in labs)


def write_demo(
    folder: Path,
    *,
    seed: int = 0,
    on_specimen: Callable[[], None] = lambda: None,
    labs: Sequence[Laboratory] = LABS,
) -> int:
    """Write a federation file and the folders of virtual labs.

    The whole is built beside `folder` and then moved there, so that an interrupted run leaves no
    demo behind, and the one that was there before. The same seed gives the same files.

    Parameters
    ----------
    folder : Path
        New, empty, or holding an earlier demo, which is replaced.
    seed : int
    on_specimen : callable
        Called after each specimen.
    labs : sequence of Laboratory

    Returns
    -------
    int
        The number of specimens.

    Raises
    ------
    ConfigurationError
        If `folder` holds anything else than a demo.
    """
    _check_free(folder)
    building = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    building.mkdir(parents=True)
    try:
        ours = [MARKER, federation.FILE_NAME, *(lab.name for lab in labs)]
        (building / MARKER).write_text(json.dumps(ours) + "\n", encoding="utf-8")
        (building / federation.FILE_NAME).write_text(tomli_w.dumps(FEDERATION), encoding="utf-8")
        _write_labs(building, labs, seed, on_specimen)
        _move(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return num_specimens(labs)


def _check_free(folder: Path) -> None:
    if folder.exists() and not (
        folder.is_dir() and ((folder / MARKER).is_file() or not any(folder.iterdir()))
    ):
        raise ConfigurationError(
            f"{folder} holds something that is not a demo; name a new or an empty folder"
        )


def _move(building: Path, folder: Path) -> None:
    if not folder.exists():
        building.replace(folder)
        return
    ours = json.loads((folder / MARKER).read_text("utf-8")) if any(folder.iterdir()) else []
    for entry in folder.iterdir():
        # what somebody else put beside the labs is theirs
        if entry.name not in ours:
            entry.replace(building / entry.name)
    old = building.with_suffix(".old")
    folder.replace(old)
    building.replace(folder)
    shutil.rmtree(old)


@dataclass(frozen=True, kw_only=True)
class _Order:
    lab: Laboratory
    number: int
    seed: np.random.SeedSequence
    images: Path

    @property
    def specimen(self) -> str:
        return self.lab.specimen.format(self.number)


def _write_labs(
    folder: Path, labs: Sequence[Laboratory], seed: int, on_specimen: Callable[[], None]
) -> None:
    seeds = np.random.SeedSequence(seed).spawn(len(labs))
    orders: list[_Order] = []
    for lab, of_lab in zip(labs, seeds, strict=True):
        images = folder / lab.name / IMAGES
        images.mkdir(parents=True)
        orders += [
            _Order(lab=lab, number=number, seed=own, images=images)
            for number, own in enumerate(of_lab.spawn(lab.num_specimens), start=1)
        ]
    results = _in_processes(orders, on_specimen)
    for lab in labs:
        rows = [
            (order, result) for order, result in zip(orders, results, strict=True)
            if order.lab is lab
        ]  # fmt: skip
        _write_table(folder / lab.name / TABLE, lab, rows)
        settings = tomli_w.dumps(_settings(lab))
        (folder / lab.name / "lab.toml").write_text(settings, encoding="utf-8")


def _in_processes(orders: list[_Order], on_specimen: Callable[[], None]) -> list[dict[str, float]]:
    workers = min(os.cpu_count() or 1, MAX_WORKERS, len(orders))
    # a fork of a process with threads (OpenCV's, PyTorch's) may hang
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        futures: list[Future[dict[str, float]]] = [pool.submit(_make, order) for order in orders]
        for future in as_completed(futures):
            future.result()
            on_specimen()
        return [future.result() for future in futures]
    finally:
        pool.shutdown(cancel_futures=True)


def _make(order: _Order) -> dict[str, float]:
    cv2.setNumThreads(1)
    rng = np.random.default_rng(order.seed)
    section = random_section(order.lab.process.recipe(rng), side=SIDE_UM, rng=rng)
    coverage = rasterise(section, SOLVER_PX)
    # the solver in single precision: its error stays a tenth of a per mille, at half the time
    moduli = pixel_moduli(coverage.fibre, coverage.void + coverage.crack)
    first, shear = (field.astype(np.float32) for field in moduli)
    stiffness = effective_stiffness(first, shear, tolerance=SOLVER_TOLERANCE)
    strength = transverse_strength(largest_defect_um(section))
    scatter = rng.lognormal(0.0, [STRENGTH_SCATTER, MODULUS_SCATTER])
    picture = micrograph(section, order.lab.microscope, rng)
    save(picture, order.images / f"{order.specimen}{order.lab.microscope.suffix}")
    return {
        "tensile_strength": strength * scatter[0],
        "youngs_modulus": transverse_modulus(stiffness) * 1e3 * scatter[1],
    }


def _write_table(path: Path, lab: Laboratory, rows: list[tuple[_Order, dict[str, float]]]) -> None:
    day = date(2024, 3, 4)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=lab.dialect.get("delimiter", ","))
        writer.writerow(["SpecimenID", "TestDate", *(COLUMNS[target] for target in lab.units)])
        for order, result in rows:
            values = (
                f"{result[target] * IN_UNIT[unit]:#.4g}".rstrip(".")
                for target, unit in lab.units.items()
            )
            tested = day + timedelta(days=7 * (order.number // 8))
            decimal = lab.dialect.get("decimal", ".")
            writer.writerow(
                [order.specimen, tested.isoformat(), *(v.replace(".", decimal) for v in values)]
            )


def _settings(lab: Laboratory) -> dict[str, Any]:
    return {
        "name": lab.name,
        "data": {
            "table": TABLE,
            "images": IMAGES,
            "specimen": "SpecimenID",
            "image": f"{{SpecimenID}}*{lab.microscope.suffix}",
            "um_per_px": lab.microscope.um_per_px(SIDE_UM),
            **lab.dialect,
        },
        "targets": {
            target: {"column": COLUMNS[target], "unit": unit} for target, unit in lab.units.items()
        },
    }
