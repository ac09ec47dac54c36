"""Lab folders for tests: a good one in a temporary folder, to be damaged as a test needs it."""

from __future__ import annotations

import atexit
import copy
import csv
import gc
import io
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tomli_w

from client.dataset import Dataset, check_folder
from client.findings import Finding, Level
from common.federation import Federation

FEDERATION = {
    "name": "test",
    "targets": {
        "strength": {"unit": "MPa", "range": [0, 3000]},
        "modulus": {"unit": "GPa", "range": [0, 400]},
    },
    "imaging": {"scale": "pixels", "tile_px": 32},
    "backbone": {"name": "resnet18"},
    "privacy": {"min_specimens": 20},
}
LAB = {
    "data": {"table": "tests.csv", "images": "images", "specimen": "id", "image": "{id}.png"},
    "targets": {
        "strength": {"column": "strength", "unit": "MPa"},
        "modulus": {"column": "modulus", "unit": "GPa"},
    },
}


def texture(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Grey values of shape (height, width), uint8, without any that are fully black or white."""
    return np.random.default_rng(seed).integers(1, 255, (height, width), dtype=np.uint8)


@dataclass
class LabFolder:
    """A lab's folder that passes the check: 24 specimens, S01 to S24, one PNG each."""

    path: Path
    settings: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(LAB))
    federation: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(FEDERATION))
    header: list[str] = field(default_factory=lambda: ["id", "strength", "modulus"])
    rows: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.images.mkdir(parents=True)
        for i in range(1, 25):
            self.rows.append([f"S{i:02}", f"{500 + 3 * i}", f"{70 + 0.5 * i}"])
            self.write_image(f"S{i:02}.png", texture(i))
        self.write()

    @property
    def images(self) -> Path:
        """The folder with the images."""
        return self.path / "images"

    @property
    def table(self) -> Path:
        """The table of tests."""
        return self.path / "tests.csv"

    def write_image(self, name: str, pixels: np.ndarray) -> Path:
        """Write one image with OpenCV, in the format of its extension."""
        path = self.images / name
        path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
        return path

    def set_cell(self, line: int, column: str, text: str) -> None:
        """Set a cell of the table; the header is line 1."""
        self.rows[line - 2][self.header.index(column)] = text

    def add_column(self, name: str, cells: list[str]) -> None:
        """Add a column to the table."""
        self.header.append(name)
        for row, cell in zip(self.rows, cells, strict=True):
            row.append(cell)

    def write(self) -> None:
        """Write the table and the two TOML files."""
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([self.header, *self.rows])
        self.table.write_text(text.getvalue(), encoding="utf-8")
        self.write_toml()

    def write_toml(self) -> None:
        """Write the two TOML files only."""
        (self.path / "lab.toml").write_text(tomli_w.dumps(self.settings), encoding="utf-8")
        (self.path / "federation.toml").write_text(tomli_w.dumps(self.federation))

    def check(self, *, decode: bool = True) -> tuple[Dataset | None, list[Finding]]:
        """Check the folder as it lies on the disk."""
        federation = Federation.model_validate(self.federation)
        dataset, findings = check_folder(self.path, federation, decode=decode)
        assert (dataset is None) == bool(findings.stops)
        # nothing of a lab's files may reach a terminal as a control character
        assert all(finding.sentence().isprintable() for finding in findings.items)
        return dataset, findings.items

    def stops(self) -> list[Finding]:
        """Return the reasons to stop."""
        return [finding for finding in self.check()[1] if finding.level is Level.STOP]

    def fixes(self) -> list[Finding]:
        """Return what to look at, in a folder that can be used."""
        dataset, findings = self.check()
        assert dataset is not None, [finding.sentence() for finding in findings]
        return [finding for finding in findings if finding.level is Level.FIX]


@pytest.fixture
def lab(tmp_path: Path) -> LabFolder:
    """A lab's folder that passes the check."""
    return LabFolder(tmp_path / "lab")


@pytest.fixture
def make_lab(tmp_path: Path) -> Callable[[str], LabFolder]:
    """Make lab folders by name."""
    return lambda name: LabFolder(tmp_path / name)


@pytest.fixture(autouse=True)
def _garbage_is_searched_as_before() -> Iterator[None]:
    """A command that a test runs in this process sets how often for all that follow."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    atexit.unregister(gc.freeze)


@pytest.fixture
def in_bounded_time() -> Iterator[None]:
    """Fail a test that hangs, for example on a named pipe."""

    def give_up(signum: int, frame: object) -> None:
        raise TimeoutError("the check hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def shared_data() -> Path:
    """The folder with the public data sets, which not every checkout has."""
    path = Path(__file__).parents[1].parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"the public data sets are not at {path}")
    return path
