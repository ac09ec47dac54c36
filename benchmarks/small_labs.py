"""Labs small enough to be made in an instant: blurred noise whose blur decides the strength."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tomli_w

NUM_SPECIMENS = 24

FEDERATION: dict[str, Any] = {
    "name": "small",
    "targets": {"strength": {"unit": "MPa", "range": [0, 3000]}},
    "imaging": {"scale": "pixels", "tile_px": 32},
    "backbone": {"name": "efficientnet_lite0"},
}

SETTINGS: dict[str, Any] = {
    "data": {"table": "tests.csv", "images": "images", "specimen": "id", "image": "{id}.png"},
    "targets": {"strength": {"column": "strength", "unit": "MPa"}},
}


@dataclass(frozen=True)
class SmallLab:
    """A lab's folder, and the agreement that it would take part under."""

    path: Path
    federation: dict[str, Any] = field(default_factory=lambda: dict(FEDERATION))


def maker_of_small_labs(folder: Path) -> Callable[[str], SmallLab]:
    """Return what makes a lab in a folder by its name; the name decides its specimens too."""

    def make(name: str) -> SmallLab:
        path = folder / name
        write_small_lab(path, np.random.default_rng(zlib.crc32(name.encode())), NUM_SPECIMENS)
        return SmallLab(path)

    return make


def write_small_lab(path: Path, rng: np.random.Generator, num_specimens: int) -> None:
    """Write a lab's folder."""
    (path / "images").mkdir(parents=True)
    rows = []
    for number in range(1, num_specimens + 1):
        specimen, sigma = f"S{number:02}", rng.uniform(0.5, 3.0)
        noise = rng.integers(1, 255, (48, 64), dtype=np.uint8)
        cv2.imwrite(
            str(path / "images" / f"{specimen}.png"), cv2.GaussianBlur(noise, (0, 0), sigma)
        )
        rows.append([specimen, f"{900 - 200 * sigma + rng.normal(0, 10):.1f}"])
    with (path / "tests.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "strength"], *rows])
    (path / "lab.toml").write_text(tomli_w.dumps(SETTINGS))
