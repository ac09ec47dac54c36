"""The model card: what a person should know before using a released model, in Markdown.

After Mitchell et al. 2019 (FAT*, arXiv 1810.03993): what it is for, what it was made of, how it
was tried, and what it must not be used for. Numbers of specimens are rounded down.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import version

import numpy as np

from common.counts import bucketed
from common.federation import Federation
from common.intervals import LEVELS
from common.metrics import ErrorSums
from common.novelty import Novelty
from common.provenance import Provenance, mean_half_width, tried_coverage
from common.units import symbol

NOT_KNOWN = "not known"


def card(federation: Federation, provenance: Provenance, novelty: Novelty | None) -> str:
    """Return the card of a model.

    Parameters
    ----------
    federation : Federation
    provenance : Provenance
    novelty : Novelty or None
        None where nobody can tell whether a specimen is inside the domain.
    """
    sections = (
        _head(federation),
        _use(federation),
        _labs(federation, provenance),
        _errors(federation, provenance),
        _coverage(federation, provenance),
        _limits(federation, provenance, novelty),
    )
    return "\n".join(line for section in sections for line in section)


def _head(federation: Federation) -> list[str]:
    licence = federation.release.licence
    none = "none is stated in the federation file; ask the labs"
    return [
        f"# {plain(federation.name)}",
        "",
        f"- agreement: `{federation.fingerprint()}`",
        f"- written by: crossply {version('crossply')}",
        f"- strategy: {federation.training.strategy}, {federation.training.rounds} round(s)",
        f"- licence: {none if licence is None else plain(licence)}",
        "",
    ]


def _use(federation: Federation) -> list[str]:
    targets = [
        [plain(name), _unit(target.unit), _range(target.range)]
        for name, target in federation.targets.items()
    ]
    covariates = [
        [plain(name), _unit(covariate.unit), _range(covariate.range)]
        for name, covariate in federation.covariates.items()
    ]
    imaging, backbone = federation.imaging, federation.backbone
    scale = {
        "physical": f"resampled to {imaging.um_per_px} µm per px",
        "pixels": "as they are: nobody knows their scale",
        "fit": "resized to one tile, whatever their scale is",
    }[imaging.scale]
    weights = "ImageNet" if backbone.sha256 is None else f"SHA-256 `{backbone.sha256}`"
    names = ", ".join(federation.descriptors.names) or "none"
    return [
        "## What it predicts, and from what",
        "",
        *_table(["target", "unit", "range"], targets),
        f"- micrographs: {scale}, in tiles of {imaging.tile_px} px, {imaging.max_tiles} at most",
        f"- backbone: {backbone.name}, weights: {weights}, {backbone.precision}",
        f"- descriptors: {names}",
        "",
        *(_table(["covariate", "unit", "range"], covariates) if covariates else []),
    ]


def _labs(federation: Federation, provenance: Provenance) -> list[str]:
    names = [plain(name) for name in federation.targets]
    rows = []
    counts = provenance.num_examples.tolist()
    for lab, count, left_out in zip(provenance.labs, counts, provenance.left_out_rmse, strict=True):
        shown = map(_in_unit, left_out.tolist(), _units(federation))
        rows.append([plain(lab), f"{count:.0f} or more" if count else NOT_KNOWN, *shown])
    return [
        "## Labs",
        "",
        "*As a new lab*: root mean square error of ridge regression over the other labs, at a lab "
        "that it has not seen (scaling and directions are those of all labs).",
        "",
        *_table(["lab", "specimens", *(f"{name}, as a new lab" for name in names)], rows),
    ]


def _errors(federation: Federation, provenance: Provenance) -> list[str]:
    if provenance.errors is None:
        return ["## Held-out specimens", "", "No lab told how the model does on them.", ""]
    rows = []
    for index, (name, unit) in enumerate(zip(federation.targets, _units(federation), strict=True)):
        found = _metrics(provenance.errors, index, unit)
        line = _metrics(provenance.baseline, index, unit)
        count = int(provenance.errors.count[index])
        rows.append(
            [plain(name), f"{bucketed(count)} or more" if count else "none", *found, line[0]]
        )
    return [
        "## Held-out specimens",
        "",
        "Mean absolute and root mean square error on specimens that were not trained on; *ridge* "
        "is the same for the linear baseline.",
        "",
        *_table(["target", "specimens", "MAE", "RMSE", "R²", "ridge, MAE"], rows),
    ]


def _coverage(federation: Federation, provenance: Provenance) -> list[str]:
    sums = provenance.calibration
    if sums is None:
        return ["## Intervals", "", "No lab told counts of scores: predictions have none.", ""]
    covered, width = tried_coverage(sums), mean_half_width(sums)
    rows = [
        [
            plain(name),
            f"{level:.0%}",
            NOT_KNOWN if np.isnan(covered[i, t]) else f"{covered[i, t]:.0%}",
            "too few specimens" if np.isinf(width[i, t]) else f"± {_in_unit(width[i, t], unit)}",
        ]
        for t, (name, unit) in enumerate(zip(federation.targets, _units(federation), strict=True))
        for i, level in enumerate(LEVELS)
    ]
    return [
        "## Intervals",
        "",
        "Calibrated on held-out specimens; *covered* was measured on specimens that the interval "
        "was not calibrated on.",
        "",
        *_table(["target", "meant to cover", "covered", "mean half-width"], rows),
    ]


def _limits(federation: Federation, provenance: Provenance, novelty: Novelty | None) -> list[str]:
    imaging = federation.imaging
    told = (
        "A specimen that is called *unlike any lab's specimens*: nothing above holds for it."
        if novelty is not None
        else "Any specimen that is not clearly like the labs': the model cannot tell whether it is."
    )
    scale = (
        "Micrographs whose µm per px are not known, or too coarse for "
        f"{imaging.um_per_px} µm per px."
        if imaging.scale == "physical"
        else "Micrographs taken at another magnification than the labs'."
    )
    alone = ["- It was made by one lab alone."] if len(provenance.labs) == 1 else []
    return [
        "## What it must not be used for",
        "",
        f"- {told}",
        f"- {scale}",
        "- Other imaging: another contrast, detector, preparation or section than the labs use.",
        "- Extrapolation: values beyond the ranges above, other materials, other test methods.",
        "- Releasing a part or a structure without tests: it says what to expect, and proves "
        "nothing.",
        *alone,
        "",
    ]


def plain(text: str) -> str:
    r"""Return a name so that Markdown and HTML show it as it is.

    Examples
    --------
    >>> plain("a|b <i>*c*")
    'a\\|b \\<i\\>\\*c\\*'
    """
    return "".join(f"\\{sign}" if sign in "\\`*{}[]<>#|~" else sign for sign in text)


def _units(federation: Federation) -> list[str]:
    return [target.unit for target in federation.targets.values()]


def _unit(unit: str) -> str:
    return symbol(unit) or "–"


def _range(limits: tuple[float, float]) -> str:
    return f"{limits[0]:g} to {limits[1]:g}"


def _in_unit(value: float, unit: str) -> str:
    return NOT_KNOWN if np.isnan(value) else f"{value:.3g} {symbol(unit)}".strip()


def _metrics(sums: ErrorSums | None, target: int, unit: str) -> list[str]:
    found = {} if sums is None else sums.metrics(target)
    mae, rmse, r2 = (found.get(name) for name in ("mae", "rmse", "r2"))
    shown = [NOT_KNOWN if value is None else _in_unit(value, unit) for value in (mae, rmse)]
    return [*shown, NOT_KNOWN if r2 is None else f"{r2:.2f}"]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]
