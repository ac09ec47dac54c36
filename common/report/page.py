"""The report as one HTML file: no script, no network, printable, for a desk and for a phone."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from common.files import write_atomically
from common.report import causes, sections
from common.report.blocks import Section, number
from common.report.content import CoordinatorReport, LabReport, Report, SimulationReport, Target
from common.report.drawing import looks

REPORT = "report.html"

_KINDS = {
    CoordinatorReport: "for the coordinator and all labs",
    SimulationReport: "of a simulation",
    LabReport: "for",
}


def render(report: Report) -> str:
    """Return the page.

    Parameters
    ----------
    report : CoordinatorReport, SimulationReport or LabReport

    Examples
    --------
    >>> from common.report.content import Evidence, Head
    >>> head = Head(title="Strength", federation="cfrp", verdict="Joining pays for <all>.")
    >>> page = render(CoordinatorReport(head=head, evidence=Evidence()))
    >>> "Joining pays for &lt;all&gt;." in page, "What it is worth" in page
    (True, False)
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    kind = _KINDS[type(report)]
    return environment.get_template("template.html").render(
        head=report.head,
        kind=f"{kind} {report.lab}" if isinstance(report, LabReport) else kind,
        is_private=not isinstance(report, CoordinatorReport),
        targets=[_target(target) for target in report.evidence.targets],
        sections=sections_of(report),
    )


def write_report(path: Path, report: Report) -> None:
    """Write the page so that a reader sees all of it or what was there before.

    Raises
    ------
    OSError
        If the folder cannot be written to or the disk is full.
    """
    write_atomically(path, render(report))


def sections_of(report: Report) -> list[Section]:
    """Return the sections that have something to say, in the order in which they are read."""
    evidence = report.evidence
    own = report.specimens if isinstance(report, LabReport) else ()
    saliency = report.saliency if isinstance(report, LabReport) else ()
    found = [
        sections.worth(report),
        sections.certainty(evidence),
        sections.quality(report, looks(_labs(report))),
        sections.own(own, evidence),
        causes.why(evidence, saliency),
        sections.others(evidence),
        causes.training(report),
        causes.happened(report),
        sections.notes(evidence),
    ]
    return [section for section in found if section.blocks]


def _labs(report: Report) -> list[str]:
    parity = () if isinstance(report, CoordinatorReport) else report.parity
    named = [row.lab for row in report.evidence.labs] + [one.lab for one in parity]
    return list(dict.fromkeys(named))


def _target(target: Target) -> str:
    words = sections.titled(target)
    if target.low is None or target.high is None:
        return words
    return f"{words}, {_limit(target.low)} to {_limit(target.high)}"


def _limit(value: float) -> str:
    return f"{value:g}" if abs(value) < 1e6 else number(value)


__all__ = ["REPORT", "render", "sections_of", "write_report"]
