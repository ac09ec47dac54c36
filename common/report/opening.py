"""What every report opens with: which federation, which targets, and when."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from importlib.metadata import version

from common.federation import Federation
from common.report.content import Head, Target


def head_of(
    federation: Federation, *, title: str, verdict: str, excluded: Mapping[str, str] | None = None
) -> Head:
    """Return the head of today's page about a federation.

    Parameters
    ----------
    federation : Federation
    title, verdict : str
    excluded : mapping of str to str, optional
        Labs that were put out of the run, with the reason.
    """
    return Head(
        title=title,
        federation=federation.name,
        fingerprint=federation.fingerprint(),
        version=version("crossply"),
        date=f"{date.today():%d %B %Y}",
        verdict=verdict,
        excluded=excluded or {},
    )


def targets_of(federation: Federation) -> tuple[Target, ...]:
    """Return a federation's targets as a report shows them."""
    return tuple(
        Target(name=name, unit=target.unit, low=target.range[0], high=target.range[1])
        for name, target in federation.targets.items()
    )
