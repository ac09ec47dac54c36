"""Feature shift: the micrographs of a virtual lab, photographed through a microscope of its own.

The shift is one of images, not of features: the pictures that a microscope makes of a lab's
micrographs are written to files, and go through the very pipeline that a lab's own go through.
The same scenario writes the same bytes, so that their features are kept like any others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from client.dataset import Dataset
from client.micrographs import read_micrograph
from client.reading.checksums import sha256_of
from client.reading.image_files import Micrograph
from client.settings import Data
from client.workers import WORKERS
from common.cores import usable_cores
from common.errors import ConfigurationError, LabDataError
from common.federation import Federation
from common.seeds import seed_for
from simulation.microscopes import Microscope, expose, save
from simulation.scenarios.events import Event
from simulation.scenarios.scenario import Scenario, of_lab
from simulation.scenarios.virtual_labs import seed_of

log = logging.getLogger(__name__)

AS_IT_IS = Microscope(num_px=1, blur_um=0.0, noise=0.0)
"""Adds nothing: what shifts depart from."""


def microscope_of(lab: str, strength: float, seed: int) -> Microscope:
    """Draw a lab's microscope.

    Each of its properties departs from a plain copy by a normal deviate times `strength`; at 1 it
    differs from the others about as much as the microscopes of the demo's labs do.

    Examples
    --------
    >>> weak, strong = (microscope_of("celle", strength, 0) for strength in (0.5, 1.0))
    >>> bool(np.isclose(2 * np.log(weak.gamma), np.log(strong.gamma)))
    True
    """
    deviate = strength * np.random.default_rng(seed_for(seed, "microscope", lab)).normal(size=6)
    return replace(
        AS_IT_IS,
        brightness=float(0.5 + 0.06 * deviate[0]),
        contrast=float(np.exp(0.15 * deviate[1])),
        gamma=float(np.exp(0.15 * deviate[2])),
        blur_um=float(abs(0.8 * deviate[3])),
        noise=float(abs(0.03 * deviate[4])),
        ramp=float(0.2 * deviate[5]),
        bit_depth=16,
    )


def shifted(
    datasets: Sequence[Dataset],
    federation: Federation,
    scenario: Scenario,
    folder: Path,
    on_micrograph: Callable[[], None] = lambda: None,
) -> list[Dataset]:
    """Return data sets in which shifted labs have the pictures of their microscopes.

    Parameters
    ----------
    datasets : sequence of Dataset
        Cut into virtual labs.
    federation : Federation
    scenario : Scenario
    folder : Path
        To write the pictures to; it must stay until features are made.
    on_micrograph : callable
        Called after each picture, from any thread.

    Returns
    -------
    list of Dataset
        A data set of which some labs are shifted becomes two. A specimen with a micrograph that
        turns out to be unusable is left out, with a warning.

    Raises
    ------
    ConfigurationError
        If a picture cannot be written.
    """
    found = []
    for dataset in datasets:
        strengths = [of_lab(scenario.feature_shift, lab) for lab in dataset.partition or ()]
        rows = np.array(strengths) > 0
        if not rows.all():
            found.append(_rows(dataset, ~rows))
        if rows.any():
            part = _rows(dataset, rows)
            found.append(_through(part, federation, scenario, folder, on_micrograph))
    return found


def num_shifted(datasets: Sequence[Dataset], scenario: Scenario) -> int:
    """Return how many micrographs are of labs that are shifted."""
    return sum(
        len(micrographs)
        for dataset in datasets
        for lab, micrographs in zip(dataset.partition or (), dataset.micrographs, strict=True)
        if of_lab(scenario.feature_shift, lab)
    )


def shift_events(labs: Sequence[str], federation: Federation, scenario: Scenario) -> list[Event]:
    """Return an event for each lab that has a microscope of its own."""
    events = []
    for lab in labs:
        strength = of_lab(scenario.feature_shift, lab)
        if strength:
            made = microscope_of(lab, strength, seed_of(scenario, federation))
            words = (
                f"brightness {made.brightness:.2f}, contrast {made.contrast:.2f}, gamma "
                f"{made.gamma:.2f}, blur {made.blur_um:.2f} px, noise {made.noise:.3f}, ramp "
                f"{made.ramp:+.2f}"
            )
            events.append(Event(lab=lab, kind="another microscope", words=words))
    return events


@dataclass(frozen=True, kw_only=True)
class Unwritten:
    """A picture that there was no room for, or no right to write."""

    why: str


@dataclass(frozen=True, kw_only=True)
class Rephotograph:
    """A picture of a micrograph to take: the task of a worker.

    Attributes
    ----------
    path, to : Path
    data : Data
        Of ``lab.toml``.
    microscope : Microscope
        Its blur is in pixels.
    seed : int
    """

    path: Path
    to: Path
    data: Data
    microscope: Microscope
    seed: int

    def run(self) -> str | Unwritten:
        """Take it, and return the SHA-256 of its file.

        Raises
        ------
        LabDataError
            If the micrograph cannot be used; does not name the file.
        """
        grey = read_micrograph(self.path, self.data).copy()
        picture = expose(grey, self.microscope, 1.0, np.random.default_rng(self.seed))
        try:
            save(picture, self.to)
            return sha256_of(self.to)
        except OSError as error:
            return Unwritten(why=error.strerror or str(error))


def _rows(dataset: Dataset, rows: np.ndarray) -> Dataset:
    chosen = np.flatnonzero(rows).tolist()
    return replace(
        dataset,
        specimens=tuple(dataset.specimens[row] for row in chosen),
        micrographs=tuple(dataset.micrographs[row] for row in chosen),
        targets=dataset.targets[rows],
        covariates=dataset.covariates[rows],
        groups=dataset.groups[rows],
        partition=tuple((dataset.partition or ())[row] for row in chosen),
    )


def _through(
    dataset: Dataset,
    federation: Federation,
    scenario: Scenario,
    folder: Path,
    on_micrograph: Callable[[], None],
) -> Dataset:
    camera = _Camera(
        data=dataset.settings.data,
        folder=folder,
        seed=seed_of(scenario, federation),
        on_micrograph=on_micrograph,
    )
    places = [
        [(micrograph, lab, of_lab(scenario.feature_shift, lab)) for micrograph in micrographs]
        for micrographs, lab in zip(dataset.micrographs, dataset.partition or (), strict=True)
    ]
    # specimens may share a micrograph, which is photographed once
    jobs = list(dict.fromkeys(job for of_one in places for job in of_one))
    with ThreadPoolExecutor(usable_cores()) as pool:
        pictures = dict(zip(jobs, pool.map(lambda job: camera.take(*job), jobs), strict=True))
    taken = [[picture for job in of_one if (picture := pictures[job])] for of_one in places]
    whole = np.array([len(of_one) for of_one in taken]) == [len(of_one) for of_one in places]
    # cut, scaled and of one page already
    plain = dataset.settings.data.replace(
        bit_depth=None, intensity_range=None, page=None, crop_bottom=0.0
    )
    return replace(
        _rows(dataset, whole),
        micrographs=tuple(tuple(taken[row]) for row in np.flatnonzero(whole)),
        settings=dataset.settings.replace(data=plain.model_dump()),
    )


@dataclass(frozen=True, kw_only=True)
class _Camera:
    """Takes the pictures of one data set, in worker processes."""

    data: Data
    folder: Path
    seed: int
    on_micrograph: Callable[[], None]

    def take(self, micrograph: Micrograph, lab: str, strength: float) -> Micrograph | None:
        """Return a micrograph as a lab's microscope shows it; None if it cannot be used."""
        names = (lab, micrograph.sha256)
        job = Rephotograph(
            path=micrograph.path,
            to=self.folder / f"{seed_for(*names, str(micrograph.path)):016x}.png",
            data=self.data,
            microscope=microscope_of(lab, strength, self.seed),
            seed=seed_for(self.seed, "rephotograph", *names),
        )
        try:
            with WORKERS.lent() as worker:
                answer = worker.run(job)
        except LabDataError as error:
            log.warning("%s: %s; its specimen is left out", micrograph.name, error)
            return None
        finally:
            self.on_micrograph()
        if isinstance(answer, Unwritten):
            raise ConfigurationError(
                f"pictures of {lab} cannot be written to {self.folder} ({answer.why}); make room, "
                "or set TMPDIR to a folder that has some"
            )
        return replace(micrograph, path=job.to, sha256=answer)
