"""What the report says of labs: what the run is worth to each, how good and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from common.report.blocks import EMPTY, Block, Section, Table, Words, drawn, number, percent
from common.report.content import (
    CalibrationRow,
    CoordinatorReport,
    Evidence,
    LabReport,
    LabRow,
    OwnSpecimen,
    ParitySeries,
    Report,
    Target,
)
from common.report.drawing import spoken
from common.report.fit_figures import parity_figure, parity_limits, residual_figure
from common.report.lab_figures import calibration_figure, gain_figure, heat_map
from common.units import in_brackets

_DOMAIN = {None: EMPTY, True: "inside", False: "✗ unlike"}

# held together by spaces that do not break
VERDICTS = {
    "join": "✓\u00a0join",
    "no difference": "≈\u00a0no\u00a0difference",
    "hold": "✗\u00a0hold",
}


def titled(target: Target) -> str:
    """Return a target's name and unit as words."""
    return f"{spoken(target.name)}{in_brackets(target.unit)}"


def reader_of(report: Report) -> str | None:
    """Return the lab that reads the page, if it is for one."""
    return report.lab if isinstance(report, LabReport) else None


def worth(report: Report) -> Section:
    """Say what the run is worth to each lab, in the target's unit."""
    blocks: list[Block] = []
    tables: list[Block] = []
    for target in report.evidence.targets:
        rows = [row for row in report.evidence.labs if row.target == target.name]
        caption = (
            "Right of the line: the lab errs less joined than alone. The bar is what chance "
            "allows; where it crosses the line, the difference may be chance."
        )
        blocks += drawn(gain_figure(rows, target), caption)
        if rows:
            tables.append(_worth_table(rows, target, reader_of(report)))
    lead = (
        "Mean absolute error (MAE): how far off a prediction is on average, in the unit of the "
        "target, on specimens that the model had not seen."
    )
    if any(row.specimens_worth is not None for row in report.evidence.labs):
        lead += (
            " The last column: how many more specimens of its own would have bought the lab the "
            "same gain."
        )
    return Section(
        anchor="worth", title="What it is worth to each lab", lead=lead, blocks=(*blocks, *tables)
    )


def _worth_table(rows: Sequence[LabRow], target: Target, reader: str | None) -> Table:
    table = Table(
        caption=titled(target),
        headings=(
            "lab", "taking part", "gain", "low", "high", "alone", "joined", "together",
            "model to use", "specimens", "worth so many more",
        ),
        rows=tuple(
            (
                row.lab,
                VERDICTS[row.verdict] if row.verdict else EMPTY,
                number(row.gain, sign=True, like=row.alone),
                number(row.gain_low, sign=True, like=row.alone),
                number(row.gain_high, sign=True, like=row.alone),
                number(row.alone),
                number(row.joined, like=row.alone),
                number(row.together),
                (row.use or EMPTY).replace(" ", "\u00a0"),
                str(row.num_specimens),
                _specimens_worth(row),
            )
            for row in rows
        ),
        num_text=2,
        strong=frozenset(place for place, row in enumerate(rows) if row.lab == reader),
    )  # fmt: skip
    # a coordinator is told little of what only labs can compute
    return table.without_empty_columns()


def _specimens_worth(row: LabRow) -> str:
    if row.specimens_worth is None:
        return EMPTY
    return f"more than {row.specimens_worth}" if row.is_at_least else str(row.specimens_worth)


def quality(report: Report, looks: Mapping[str, tuple[str, str]]) -> Section:
    """Compare the ways of training, and show single specimens where the page may."""
    blocks: list[Block] = []
    for target in report.evidence.targets:
        rows = [row for row in report.evidence.modes if row.target == target.name]
        if rows:
            unit = in_brackets(target.unit)
            table = Table(
                caption=spoken(target.name),
                headings=("model", "specimens", "R²", f"MAE{unit}", f"RMSE{unit}"),
                rows=tuple(
                    (
                        row.label,
                        str(row.num_specimens),
                        EMPTY if row.r2 is None else f"{row.r2:.3f}".replace("-", "−"),
                        number(row.mae),
                        number(row.rmse),
                    )
                    for row in rows
                ),
                strong=frozenset(place for place, row in enumerate(rows) if row.is_shared),
            )
            blocks.append(table)
        if not isinstance(report, CoordinatorReport):
            blocks += _parity(report.parity, target, looks)
    lead = "Specimens that were held out; the shared model stands out in bold."
    lead += _line_to_beat(report.evidence)
    return Section(
        anchor="quality", title="How good the predictions are", lead=lead, blocks=tuple(blocks)
    )


def _line_to_beat(evidence: Evidence) -> str:
    """Say whether the shared model is better than ridge regression, which costs one round."""
    found: dict[bool, list[str]] = {True: [], False: []}
    for target in evidence.targets:
        rows = [row for row in evidence.modes if row.target == target.name and row.mae is not None]
        shared = [row.mae for row in rows if row.is_shared and row.mae is not None]
        line = [row.mae for row in rows if row.is_line and row.mae is not None]
        if shared and line:
            found[shared[0] < line[0]].append(spoken(target.name))
    if not any(found.values()):
        return ""
    said = [
        f"{verb} for {', '.join(names)}"
        for verb, names in (("does", found[True]), ("does not", found[False]))
        if names
    ]
    return (
        " Ridge regression, solved in one round of sums, is the line that it must beat; by the MAE "
        f"it {', and '.join(said)}."
    )


def _parity(
    parity: Sequence[ParitySeries], target: Target, looks: Mapping[str, tuple[str, str]]
) -> list[Block]:
    chosen = [one for one in parity if one.target == target.name]
    limits = parity_limits(chosen) if chosen else (0.0, 1.0)
    blocks: list[Block] = []
    for mode in dict.fromkeys(one.mode for one in chosen):
        of_mode = [one for one in chosen if one.mode == mode]
        caption = "On the line, a prediction is exact. "
        caption += "Bars: 90 % intervals." if any(one.lower is not None for one in of_mode) else ""
        blocks += drawn(parity_figure(of_mode, target, looks, limits), caption.strip())
        if any(one.is_shared for one in of_mode):
            caption = "A trend or a shift of one lab's marks is an error that could be mended."
            blocks += drawn(residual_figure(of_mode, target, looks), caption)
    return blocks


def certainty(evidence: Evidence) -> Section:
    """Say how often intervals held, how wide they are, and who is inside the domain."""
    blocks: list[Block] = []
    for target in evidence.targets:
        rows = [row for row in evidence.calibration if row.target == target.name]
        known = [row for row in rows if row.num_specimens and math.isfinite(row.coverage)]
        if known:
            caption = (
                "Dashed: what the intervals promise. Grey: what chance allows with so many "
                "specimens. A square lies outside of it."
            )
            blocks += drawn(calibration_figure(known, target), caption)
        if rows:
            blocks.append(_calibration_table(rows, target))
    if evidence.inside:
        rows_inside = tuple(
            (one.lab, percent(one.share), str(one.num_specimens)) for one in evidence.inside
        )
        blocks.append(
            Table(
                caption="specimens like those that the model learned from",
                headings=("lab", "inside the domain", "specimens"),
                rows=rows_inside,
            )
        )
    lead = (
        "A 90 % interval is to hold the measured value of nine specimens in ten. Outside the "
        "domain, neither prediction nor interval should be relied on."
    )
    return Section(
        anchor="certainty", title="How sure a prediction is", lead=lead, blocks=tuple(blocks)
    )


def _calibration_table(rows: Sequence[CalibrationRow], target: Target) -> Table:
    levels = sorted({row.level for row in rows})
    labs = list(dict.fromkeys(row.lab for row in rows))
    found = {(row.lab, row.level): row for row in rows}
    lines = []
    for lab in labs:
        of_lab = [found.get((lab, level)) for level in levels]
        most = max(row.num_specimens for row in of_lab if row)
        cells = [lab or "all labs", str(most)]
        for row in of_lab:
            known = (row.coverage, row.mean_width) if row else (None, None)
            cells += [percent(known[0]), number(known[1])]
        lines.append(tuple(cells))
    headings = [text for level in levels for text in (f"{percent(level)} held", "mean width")]
    return Table(
        caption=titled(target),
        headings=("lab", "specimens", *headings),
        rows=tuple(lines),
        strong=frozenset(place for place, lab in enumerate(labs) if lab is None),
    )


def own(specimens: Sequence[OwnSpecimen], evidence: Evidence) -> Section:
    """List the lab's own specimens."""
    blocks: list[Block] = []
    for target in evidence.targets:
        chosen = [one for one in specimens if one.target == target.name]
        if chosen:
            table = Table(
                caption=titled(target),
                headings=("specimen", "domain", "measured", "predicted", "from", "to"),
                rows=tuple(
                    (
                        one.specimen,
                        _DOMAIN[one.is_inside],
                        number(one.measured),
                        number(one.predicted),
                        number(one.lower),
                        number(one.upper),
                    )
                    for one in chosen
                ),
                num_text=2,
            )
            blocks.append(table)
    lead = "Each was held out when it was predicted. This list stays at your lab."
    return Section(anchor="specimens", title="Your specimens", lead=lead, blocks=tuple(blocks))


def others(evidence: Evidence) -> Section:
    """Say what a lab that was not part of the run would get, and how far labs are apart."""
    blocks: list[Block] = []
    for target in evidence.targets:
        rows = [row for row in evidence.left_out if row.target == target.name]
        if rows:
            compared = any(row.included is not None for row in rows)
            headings = ("lab", "error of a model that never saw it", "of the same kind, with it")
            cells = [(row.lab, number(row.without), number(row.included)) for row in rows]
            width = 3 if compared else 2
            table = Table(
                caption=titled(target),
                headings=headings[:width],
                rows=tuple(row[:width] for row in cells),
            )
            blocks.append(table)
    for matrix in evidence.matrices:
        caption = f"{matrix.title}{in_brackets(matrix.unit)}. {matrix.reading}".strip()
        blocks += drawn(heat_map(matrix), caption)
    lead = "How well the model carries over from lab to lab, and how alike their images are."
    return Section(anchor="others", title="What a new lab would get", lead=lead,
                   blocks=tuple(blocks))  # fmt: skip


def notes(evidence: Evidence) -> Section:
    """Say what is missing, and why."""
    blocks = (Words(points=evidence.notes),) if evidence.notes else ()
    return Section(anchor="notes", title="What this report does not say", lead="", blocks=blocks)
