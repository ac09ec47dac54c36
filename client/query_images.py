"""Images to predict from: found, checked as `lab check` does, and made a data set of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client.dataset import Dataset
from client.findings import Findings, RefusedError, printable
from client.reading.folder import list_entries
from client.reading.image_files import CheckedImage, ImageJob, Micrograph, check_images
from client.settings import METADATA, Data, LabSettings, Measured, load_settings
from common.errors import ConfigurationError, LabDataError
from common.federation import Federation

ONE_SPECIMEN = "specimen"


@dataclass(frozen=True, kw_only=True)
class Question:
    """Images that something is to be predicted of, and how they are to be read.

    Attributes
    ----------
    paths : tuple of Path
        Images, and folders of images.
    data : Data
        `um_per_px`, `crop_bottom`, `bit_depth`, `intensity_range` and `page` matter here.
    covariates : ndarray of shape (n_covariates,), float64
        In the federation's units and order.
    one_specimen : bool
        Whether all images show one specimen.
    """

    paths: tuple[Path, ...]
    data: Data
    covariates: np.ndarray
    one_specimen: bool = False


def reading_of(federation: Federation, um_per_px: str | None, lab: Path | None) -> Data:
    """Say how images are to be read: as a lab's ``lab.toml`` does, with another scale if given.

    Parameters
    ----------
    federation : Federation
    um_per_px : str or None
        A number, or ``metadata``.
    lab : Path or None
        The lab's folder.

    Raises
    ------
    ConfigurationError
        If the scale is needed and not told, or is none.
    """
    plain = Data(table="-", images=".", specimen="-", image="-")
    data = plain if lab is None else load_settings(lab).data
    if um_per_px is not None:
        data = data.replace(um_per_px=_scale(um_per_px))
    if isinstance(data.um_per_px, str) and data.um_per_px != METADATA:
        if federation.imaging.scale != "physical":
            return data.replace(um_per_px=None)
        raise ConfigurationError(
            f"lab.toml takes um_per_px from the column {printable(data.um_per_px)!r}, and these "
            "images have no row; write --um-per-px"
        )
    if federation.imaging.scale == "physical" and data.um_per_px is None:
        raise ConfigurationError(
            "the model needs to know how many µm a pixel has; write --um-per-px 0.25 (or another "
            "number), --um-per-px metadata if it stands in the files, or --lab DIR"
        )
    return data


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Return the images that are named, and those below the folders that are named.

    Raises
    ------
    LabDataError
        If a folder has no image, or cannot be read.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        try:
            below = [entry.path for entry in list_entries(path, path) if entry.is_image]
        except RefusedError as why:
            raise LabDataError(f"{printable(str(path))}: {why}") from why
        if not below:
            raise LabDataError(f"{printable(str(path))} holds no image; name another folder")
        found += below
    return list(dict.fromkeys(found))


def read_images(question: Question, federation: Federation) -> tuple[Dataset | None, Findings]:
    """Check images as `lab check` does, and make a data set of those that can be used.

    Returns
    -------
    Dataset or None
        A specimen an image, or one of all; without targets. None if no specimen is left.
    Findings
        A stop for each image that is refused.
    """
    findings = Findings()
    paths = find_images(question.paths)
    declared = question.data.um_per_px
    scale = None if isinstance(declared, str) else declared
    jobs = [
        ImageJob(
            path=path.absolute(),
            name=printable(str(path)),
            file=printable(str(path)),
            um_per_px=scale,
            data=question.data,
            imaging=federation.imaging,
            decode=True,
            is_described=bool(federation.descriptors.names),
        )
        for path in paths
    ]
    checked = check_images(jobs, findings, None)
    _note_data_bars(jobs, checked, findings)
    used = [item.micrograph for item in checked if item.micrograph is not None]
    if question.one_specimen:
        specimens = [(ONE_SPECIMEN, tuple(used))] if len(used) == len(jobs) else []
    else:
        specimens = [(micrograph.name, (micrograph,)) for micrograph in used]
    return (_dataset(specimens, question, federation) if specimens else None), findings


def _dataset(
    specimens: Sequence[tuple[str, tuple[Micrograph, ...]]],
    question: Question,
    federation: Federation,
) -> Dataset:
    count = len(specimens)
    targets = {
        name: Measured(column=name, unit=target.unit) for name, target in federation.targets.items()
    }
    return Dataset(
        name="images",
        folder=Path(),
        settings=LabSettings(data=question.data, targets=targets),
        specimens=tuple(name for name, _ in specimens),
        micrographs=tuple(micrographs for _, micrographs in specimens),
        targets=np.full((count, len(targets)), np.nan),
        covariates=np.tile(question.covariates, (count, 1)),
        groups=np.arange(count),
        partition=None,
    )


def _note_data_bars(
    jobs: Sequence[ImageJob], checked: Sequence[CheckedImage], findings: Findings
) -> None:
    for job, result in zip(jobs, checked, strict=True):
        if result.header is None or result.bar_begins is None:
            continue
        height = result.header.shape[0]
        if result.bar_begins < job.data.rows_kept(height):
            findings.fix(
                job.file,
                f"rows {result.bar_begins + 1} to {height} look like an instrument's data bar",
                "write crop_bottom in lab.toml as for your other images, and name it with --lab",
            )


def _scale(text: str) -> float | str:
    if text == METADATA:
        return text
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigurationError(f'--um-per-px: write a number above zero, or "{METADATA}"')
    return value
