"""All micrographs of a lab: joined to their specimens, scaled, checked and hashed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from client.feature_store import default_folder
from client.file_digests import DIGESTS, FileDigests
from client.findings import Findings, printable
from client.reading.checksums import check_checksums, read_checksums, sha256_of
from client.reading.folder import within
from client.reading.image_claims import Claim, ImageFolder
from client.reading.image_files import CheckedImage, ImageJob, Micrograph, check_images, describe
from client.reading.image_join import join_images
from client.reading.measurements import LabTable
from client.reading.scales import read_scales
from client.settings import FILE_NAME, METADATA, Data, UmPerPx
from common.federation import Federation


def check_micrographs(
    lab: LabTable, images: ImageFolder, federation: Federation, findings: Findings, *, decode: bool
) -> dict[str, tuple[Micrograph, ...]]:
    """Find and check the micrographs of each specimen.

    Parameters
    ----------
    lab : LabTable
    images : ImageFolder
    federation : Federation
    findings : Findings
        Added to.
    decode : bool
        Whether to decode each micrograph too.

    Returns
    -------
    dict of str to tuple of Micrograph
        By specimen id, sorted by name; without those that are refused.
    """
    claims = join_images(lab.table, lab.specimens, images, lab.settings.data, findings)
    imaging = federation.imaging
    scales = read_scales(lab, findings, required=imaging.scale == "physical")
    jobs = {
        claim.entry.name: ImageJob(
            path=claim.entry.path,
            name=printable(claim.entry.name),
            file=claim.entry.file,
            um_per_px=_scale_of(lab, claim, scales, findings),
            data=lab.settings.data,
            imaging=imaging,
            is_described=bool(federation.descriptors.names),
            decode=decode,
        )
        for of_specimen in claims.values()
        for claim in of_specimen
    }
    checked = dict(
        zip(
            jobs,
            check_images(list(jobs.values()), findings, _digests(lab.settings.data)),
            strict=True,
        )
    )
    _note_data_bars(jobs, images, checked, findings)
    _check_manifest(lab, images, checked, findings)
    _summarise(lab, images, checked, findings, decode=decode)
    return {
        specimen: tuple(
            micrograph
            for claim in of_specimen
            if (micrograph := checked[claim.entry.name].micrograph) is not None
        )
        for specimen, of_specimen in claims.items()
    }


def _scale_of(
    lab: LabTable, claim: Claim, scales: np.ndarray, findings: Findings
) -> UmPerPx | None:
    if isinstance(lab.settings.data.um_per_px, tuple):
        return lab.settings.data.um_per_px
    found = [(float(scales[row]), row) for row in claim.rows if np.isfinite(scales[row])]
    for scale, row in found:
        if scale != found[0][0]:
            findings.stop(
                lab.table.file,
                f"{claim.entry.file} has {scale:g} µm per px here and "
                f"{found[0][0]:g} in row {lab.table.lines[found[0][1]]}",
                "give each micrograph one scale",
                row=lab.table.lines[row],
            )
            break
    return found[0][0] if found else None


def _note_data_bars(
    jobs: Mapping[str, ImageJob],
    images: ImageFolder,
    checked: Mapping[str, CheckedImage],
    findings: Findings,
) -> None:
    """Suggest one `crop_bottom` for all images that still show a data bar, in one finding."""
    bars = {}
    for name, result in checked.items():
        if result.header is not None and result.bar_begins is not None:
            height = result.header.shape[0]
            if result.bar_begins < jobs[name].data.rows_kept(height):
                bars[name] = height, result.bar_begins
    if not bars:
        return
    # rounded up, so that no row of a bar is left
    thousandths = max(-(-1000 * (height - begins) // height) for height, begins in bars.values())
    name, (height, begins) = next(iter(bars.items()))
    file, found = jobs[name].file, f"rows {begins + 1} to {height} of {height}"
    if len(bars) > 1:
        found = f"{len(bars)} of {len(checked)} micrographs, such as {jobs[name].name}: {found}"
        file = printable(images.images.name)
    findings.fix(
        file,
        f"{found} look like an instrument's data bar",
        f"write crop_bottom = {thousandths / 1000:.3f} under [data] in {FILE_NAME}; it is cut "
        "from all micrographs",
    )


def _digests(data: Data) -> FileDigests | None:
    """Return the memo of digests, but not where checksums are to find bytes that rotted unseen."""
    return FileDigests(default_folder() / DIGESTS) if data.checksums is None else None


def _check_manifest(
    lab: LabTable, images: ImageFolder, checked: Mapping[str, CheckedImage], findings: Findings
) -> None:
    name = lab.settings.data.checksums
    if name is None:
        return
    before = len(findings.stops)
    listed = read_checksums(images.lab, name, findings)
    if len(findings.stops) > before:
        return
    used = [result.micrograph for result in checked.values() if result.micrograph is not None]
    actual = {item.path.relative_to(images.lab).as_posix(): item.sha256 for item in used}
    table = within(images.lab, lab.settings.data.table)
    actual[table.relative_to(images.lab).as_posix()] = sha256_of(table)
    check_checksums(listed, actual, name, findings)
    findings.passed(printable(name), f"{len(actual)} files compared with their checksums")


def _summarise(
    lab: LabTable,
    images: ImageFolder,
    checked: Mapping[str, CheckedImage],
    findings: Findings,
    *,
    decode: bool,
) -> None:
    headers = [result.header for result in checked.values() if result.header is not None]
    if headers:
        how = "decoded" if decode else "with a valid header"
        findings.passed(
            printable(images.images.name),
            f"{len(headers)} micrographs {how}: {describe(headers)}",
        )
    if lab.settings.data.um_per_px == METADATA:
        _summarise_scales(images, checked, findings)
    findings.passed(lab.table.file, f"{len(lab.specimens)} specimens in {len(lab.table.rows)} rows")


def _summarise_scales(
    images: ImageFolder, checked: Mapping[str, CheckedImage], findings: Findings
) -> None:
    used = [result.micrograph for result in checked.values() if result.micrograph is not None]
    scales = [item.um_per_px for item in used if isinstance(item.um_per_px, float)]
    if scales:
        low, high = f"{min(scales):.4g}", f"{max(scales):.4g}"
        span = low if low == high else f"{low} to {high}"
        findings.passed(
            printable(images.images.name),
            f"scale from the instruments' own records: {span} µm per px",
        )
