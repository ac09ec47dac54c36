"""The micrographs of a data set as files: checked one by one, hashed, compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from client import tiles
from client.describing import described_size
from client.file_digests import FileDigests
from client.findings import Findings, RefusedError, printable
from client.micrographs import inspect_micrograph
from client.reading.checksums import sha256_of
from client.reading.image_header import ImageHeader, read_header
from client.reading.image_remarks import Remark
from client.reading.image_scale import remarks_on_scale, settle_scale
from client.settings import Data, UmPerPx
from client.workers import WORKERS
from common.cores import usable_cores
from common.errors import LabDataError
from common.federation import Imaging


@dataclass(frozen=True, kw_only=True)
class Micrograph:
    """One image file of a specimen.

    Attributes
    ----------
    path : Path
        Absolute.
    name : str
        Relative to the images folder, printable.
    sha256 : str
        Of the file's bytes.
    um_per_px : float, pair of float (across, down), or None
        Of the upright image; a pair where the lab declares that pixels are not square.
    """

    path: Path
    name: str
    sha256: str
    um_per_px: UmPerPx | None


@dataclass(frozen=True, kw_only=True)
class ImageJob:
    """A file to check, and what it takes."""

    path: Path
    name: str
    file: str
    um_per_px: UmPerPx | None
    data: Data
    imaging: Imaging
    is_described: bool
    decode: bool

    def run(self) -> CheckedImage:
        """Check the file, read anew in full: the task of a worker."""
        return check_image(self, sha256_of)


@dataclass(frozen=True, kw_only=True)
class CheckedImage:
    """What became of a file: a micrograph, or the reason to refuse it.

    Attributes
    ----------
    micrograph : Micrograph or None
    header : ImageHeader or None
    remarks : tuple of Remark
    bar_begins : int or None
        Row of the upright, uncut image from which on it is an instrument's data bar.
    refused : LabDataError or None
    """

    micrograph: Micrograph | None = None
    header: ImageHeader | None = None
    remarks: tuple[Remark, ...] = field(default=())
    bar_begins: int | None = None
    refused: LabDataError | None = None


def check_images(
    jobs: Sequence[ImageJob], findings: Findings, digests: FileDigests | None
) -> list[CheckedImage]:
    """Check files, several at once, and note what is found in their order.

    Files that are to be decoded are so in worker processes.

    Parameters
    ----------
    jobs : sequence of ImageJob
    findings : Findings
        Added to.
    digests : FileDigests or None
        None where each file is to be read in full; so are those that are decoded.

    Returns
    -------
    list of CheckedImage
        One for each job.
    """
    with ThreadPoolExecutor(usable_cores()) as pool:
        checked = list(pool.map(partial(_check, digests=digests), jobs))
    if digests is not None:
        digests.save()
    for job, result in zip(jobs, checked, strict=True):
        if result.refused is not None:
            findings.refuse(job.file, result.refused)
        for remark in result.remarks:
            findings.fix(job.file, remark.found, remark.action)
    return checked


def _check(job: ImageJob, digests: FileDigests | None) -> CheckedImage:
    if not job.decode:
        return check_image(job, sha256_of if digests is None else digests.of)
    try:
        with WORKERS.lent() as worker:
            return worker.run(job)
    except RefusedError as error:
        return CheckedImage(refused=error)


def check_image(job: ImageJob, digest_of: Callable[[Path], str]) -> CheckedImage:
    """Check one file: header, scale, size in tiles, and its pixels if they are to be decoded."""
    try:
        remarks: tuple[Remark, ...] = ()
        bar_begins = None
        if job.decode:
            inspection = inspect_micrograph(job.path, job.data)
            header, remarks = inspection.header, inspection.remarks
            bar_begins = inspection.bar_begins
        else:
            header = read_header(job.path, job.data)
        um_per_px = settle_scale(job.path, header, job.um_per_px, job.data, job.imaging)
        height, width = header.shape
        if job.imaging.scale != "physical" or um_per_px is not None:
            # a scale that is missing is noted with the table
            size = job.data.rows_kept(height), width
            tiles.plan(*size, um_per_px, job.imaging)
            if job.is_described:
                described_size(*size, um_per_px, job.imaging)
        sha256 = digest_of(job.path)
    except LabDataError as error:
        return CheckedImage(refused=error)
    except OSError as error:
        return CheckedImage(refused=LabDataError(f"cannot be read ({error.strerror})"))
    return CheckedImage(
        micrograph=Micrograph(path=job.path, name=job.name, sha256=sha256, um_per_px=um_per_px),
        header=header,
        remarks=(*remarks, *remarks_on_scale(header, um_per_px)),
        bar_begins=bar_begins,
    )


def note_equal_images(
    micrographs: Mapping[str, Sequence[Micrograph]], folder: Path, findings: Findings
) -> list[tuple[str, str]]:
    """Note files with the same bytes.

    Parameters
    ----------
    micrographs : dict of str to list of Micrograph
        By specimen id.
    folder : Path
        The lab's.
    findings : Findings
        Gains a fix for each file that repeats another.

    Returns
    -------
    list of pairs of str
        Specimens that share an image, and so must stay on one side of a split.
    """
    first: dict[str, tuple[str, str]] = {}
    pairs = []
    for specimen, of_specimen in micrographs.items():
        for micrograph in of_specimen:
            owner, name = first.setdefault(micrograph.sha256, (specimen, micrograph.name))
            if name == micrograph.name:
                continue
            if owner == specimen:
                action = "remove one of them, it counts twice"
            else:
                pairs.append((owner, specimen))
                action = "check which specimen it shows; they stay on one side of each split"
            findings.fix(
                printable(micrograph.path.relative_to(folder).as_posix()),
                f"is the same image as {name} of specimen {owner!r}",
                action,
            )
    return pairs


def describe(headers: Sequence[ImageHeader]) -> str:
    """Return in words what kinds and sizes of images there are.

    Examples
    --------
    >>> describe([ImageHeader(format="PNG", height=28, width=28, bits=8)])
    'PNG, 28 x 28 px, 8 bit'
    """
    formats = ", ".join(sorted({header.format for header in headers}))
    sizes = sorted({header.shape for header in headers}, key=lambda shape: shape[0] * shape[1])
    shown = [f"{width} x {height}" for height, width in sizes]
    span = shown[0] if len(shown) == 1 else f"{shown[0]} to {shown[-1]}"
    bits = " and ".join(str(bits) for bits in sorted({header.bits for header in headers}))
    return printable(f"{formats}, {span} px, {bits} bit")
