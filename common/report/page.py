"""The report as one HTML file: no script, no network, printable, for a desk and for a phone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from common.files import write_atomically
from common.report import causes, sections
from common.report.blocks import Section, number
from common.report.content import (
    CoordinatorReport,
    Head,
    LabReport,
    Report,
    SimulationReport,
    Target,
)
from common.report.drawing import looks

REPORT = "report.html"

_KINDS = {
    CoordinatorReport: "for the coordinator",
    SimulationReport: "of a simulation",
    LabReport: "for",
}

RMSE_MEANING = "root of the mean squared error; large errors weigh more than in the MAE"
R2_MEANING = "share of the variance that is explained: 1 is perfect, 0 is as good as the mean"

_WORDS = {
    "alone": "a model that a lab trained on its own specimens only",
    "together": "the shared model, to which all labs sent weights and no specimens",
    "joined": "by the version of the shared model that a lab would use, chosen on other specimens "
    "than those that it is tried on: it may come out a little worse than together",
    "personalised": "the shared model, trained a little further on the lab's own specimens",
    "with offset": "the shared model plus one constant for a lab whose values are shifted",
    "own": "the model that the lab trained on its own specimens only: joined is clearly worse",
    "aligned": "the shared model on features that are given everyone's mean and spread first",
    "R²": R2_MEANING,
    "RMSE": RMSE_MEANING,
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
    kind = _KINDS[type(report)]
    return render_sections(
        report.head,
        sections_of(report),
        kind=f"{kind} {report.lab}" if isinstance(report, LabReport) else kind,
        targets=report.evidence.targets,
        words=_WORDS,
        is_private=not isinstance(report, CoordinatorReport),
    )


def render_sections(
    head: Head,
    sections: Sequence[Section],
    *,
    kind: str,
    targets: Sequence[Target],
    words: Mapping[str, str],
    is_private: bool,
) -> str:
    """Return a page of some sections.

    Parameters
    ----------
    head : Head
    sections : sequence of Section
    kind : str
        What follows the word "Report" under the title.
    targets : sequence of Target
    words : mapping of str to str
        What the page's words mean.
    is_private : bool
        Whether single specimens are shown.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("template.html").render(
        head=head,
        kind=kind,
        is_private=is_private,
        targets=[_target(target) for target in targets],
        sections=sections,
        words=words,
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
    found = [
        sections.worth(report),
        sections.certainty(evidence),
        sections.quality(report, looks(_labs(report))),
        sections.own(own, evidence),
        causes.why(evidence),
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


__all__ = ["REPORT", "render", "render_sections", "sections_of", "write_report"]
