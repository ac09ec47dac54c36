"""Predictions as sentences, as a table for spreadsheets, and as JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from math import floor, log10
from typing import Any

import numpy as np

from client.prediction import Predictions
from common.federation import Federation
from common.intervals import LEVELS
from common.spreadsheet import as_text
from common.units import symbol

INSIDE, OUTSIDE = "inside the domain", "unlike any lab's specimens"
SHOWN = -1
"""The level whose interval is printed: the widest."""


def sentences(
    predictions: Predictions, federation: Federation, *, is_named: bool = False
) -> list[str]:
    """Return a line for each specimen and target.

    Parameters
    ----------
    predictions : Predictions
    federation : Federation
    is_named : bool
        Whether a single specimen is named too: it is one of several that were asked about.

    Examples
    --------
    >>> federation = Federation.model_validate(
    ...     {
    ...         "name": "example",
    ...         "targets": {"tensile_strength": {"unit": "MPa", "range": [0, 3000]}},
    ...         "imaging": {"scale": "fit"},
    ...         "backbone": {"name": "resnet18"},
    ...     }
    ... )
    >>> found = Predictions(
    ...     specimens=("a.tif",),
    ...     values=np.array([[612.0]]),
    ...     lower=np.array([[[583.0]], [[574.0]]]),
    ...     upper=np.array([[[641.0]], [[650.0]]]),
    ...     inside=np.array([True]),
    ... )
    >>> print(*sentences(found, federation))
    tensile_strength 612 MPa, 574 to 650 (90 %), inside the domain
    """
    is_named = is_named or len(predictions.specimens) > 1
    lines = []
    for row, specimen in enumerate(predictions.specimens):
        for index, (name, target) in enumerate(federation.targets.items()):
            value = float(predictions.values[row, index])
            lower, upper = (
                float(end[SHOWN, row, index]) for end in (predictions.lower, predictions.upper)
            )
            step = (upper - lower) / 2 if np.isfinite(lower) else abs(value) / 10
            parts = [f"{name} {_shown(value, step)} {symbol(target.unit)}".strip()]
            if np.isfinite(lower):
                ends = f"{_shown(lower, step)} to {_shown(upper, step)}"
                parts.append(f"{ends} ({100 * LEVELS[SHOWN]:.0f} %)")
            if predictions.inside is not None:
                parts.append(INSIDE if predictions.inside[row] else OUTSIDE)
            lines.append(f"{specimen}: " * is_named + ", ".join(parts))
    return lines


def as_csv(predictions: Predictions, federation: Federation) -> str:
    """Return a table with a row for each specimen and target; text that no sheet computes."""
    text = io.StringIO(newline="")
    levels = [f"{100 * level:.0f}" for level in LEVELS]
    ends = [f"{end}_{level}" for level in levels for end in ("lower", "upper")]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["specimen", "target", "unit", "value", *ends, "domain"])
    for record in records(predictions, federation):
        intervals = [record["intervals"].get(level) or (None, None) for level in levels]
        numbers = [record["value"], *(end for pair in intervals for end in pair)]
        writer.writerow(
            [
                as_text(record["specimen"]),
                as_text(record["target"]),
                record["unit"],
                *("" if number is None else repr(number) for number in numbers),
                record["domain"] or "",
            ]
        )
    return text.getvalue()


def as_json(
    predictions: Predictions,
    federation: Federation,
    source: str | None,
    versions: Mapping[str, str],
) -> str:
    """Return everything as JSON.

    Parameters
    ----------
    predictions : Predictions
    federation : Federation
    source : str or None
        Whose intervals these are: ``this lab``, ``all labs``, or nobody's.
    versions : mapping of str to str
        Which version of the head predicts each target.
    """
    found = {
        "federation": federation.name,
        "fingerprint": federation.fingerprint(),
        "intervals_of": source,
        "versions": dict(versions),
        "predictions": records(predictions, federation),
    }
    return json.dumps(found, indent=2, ensure_ascii=False)


def records(predictions: Predictions, federation: Federation) -> list[dict[str, Any]]:
    """Return a record for each specimen and target."""
    found = []
    for row, specimen in enumerate(predictions.specimens):
        domain = None
        if predictions.inside is not None:
            domain = INSIDE if predictions.inside[row] else OUTSIDE
        for index, (name, target) in enumerate(federation.targets.items()):
            lower_ends, upper_ends = (
                end[:, row, index].tolist() for end in (predictions.lower, predictions.upper)
            )
            found.append(
                {
                    "specimen": specimen,
                    "target": name,
                    "unit": target.unit,
                    "value": float(predictions.values[row, index]),
                    "intervals": {
                        f"{100 * level:.0f}": [lower, upper]
                        for level, lower, upper in zip(LEVELS, lower_ends, upper_ends, strict=True)
                        if np.isfinite(lower)
                    },
                    "domain": domain,
                }
            )
    return found


def _shown(value: float, step: float) -> str:
    """Return a number with two digits of the step that it is known to."""
    decimals = 0 if step <= 0 else max(0, 1 - floor(log10(step)))
    return f"{value:.{min(decimals, 12)}f}"
