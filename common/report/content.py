"""What a report says, before it is a page.

Every part is optional, and a part that is missing leaves no heading behind. `Evidence` holds only
what may be told to all labs: metrics over many specimens. Single specimens have types of their own,
which the coordinator's page has no field for. All of it is in one file, so that what may be told
and what may not can be read side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

Verdict = Literal["join", "no difference", "hold"]
Model = Literal["shared", "own", "personalised", "with offset", "aligned"]


@dataclass(frozen=True, kw_only=True)
class Head:
    """What the page is about.

    Attributes
    ----------
    date : str
        As it is to be printed; nothing else on the page depends on the clock.
    verdict : str
        One closing sentence, or nothing where the run cannot tell.
    excluded : mapping of str to str
        Labs that were put out of the run, with the reason.
    """

    title: str
    federation: str
    fingerprint: str = ""
    version: str = ""
    date: str = ""
    verdict: str = ""
    excluded: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A predicted property; `low` and `high` are its physical limits, in its unit."""

    name: str
    unit: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class ModeRow:
    """How well one way of training predicts a target on held-out specimens, in its unit.

    Attributes
    ----------
    is_line : bool
        Whether it is the linear baseline, which the shared model must beat.
    """

    target: str
    label: str
    num_specimens: int
    r2: float | None
    mae: float | None
    rmse: float | None
    is_shared: bool = False
    is_line: bool = False


@dataclass(frozen=True, kw_only=True)
class LabRow:
    """What the run is worth to one lab for one target, in the target's unit.

    Attributes
    ----------
    alone, together, joined : float or None
        Mean absolute errors on the lab's held-out specimens; `joined` is by the version that was
        chosen without them.
    gain, gain_low, gain_high : float or None
        ``alone - joined``, with its bootstrap interval over paired specimens.
    specimens_worth : int or None
        How many more specimens of its own would have bought the lab the same gain.
    is_at_least : bool
        The number above is a lower bound: the learning curve ends there.
    """

    lab: str
    target: str
    num_specimens: int
    alone: float | None = None
    together: float | None = None
    joined: float | None = None
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    verdict: Verdict | None = None
    use: Model | None = None
    specimens_worth: int | None = None
    is_at_least: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainingRound:
    """The loss of one round, and the labs that gave no update.

    Attributes
    ----------
    missing : mapping of str to str
        These labs, with the reason.
    num_missing : int
        How many they are, on a page that does not name them.
    """

    server_round: int
    loss: float
    missing: Mapping[str, str] = field(default_factory=dict)
    num_missing: int = 0
    fold: int = 0


@dataclass(frozen=True, kw_only=True)
class CalibrationRow:
    """How often intervals held; `lab` is None over all labs, `mean_width` in the target's unit."""

    target: str
    level: float
    coverage: float
    num_specimens: int
    mean_width: float | None = None
    lab: str | None = None


MOST_LABS = 50
"""Beyond so many, a matrix of all pairs is no picture any more."""


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Numbers of labs against labs.

    Attributes
    ----------
    values : ndarray of shape (n_rows, n_columns), in `unit`
        NaN where there is nothing to tell.
    reading : str
        One sentence on how to read it.
    row_title, column_title : str
        What the rows and the columns are, such as "model of" and "tried on".
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: np.ndarray
    unit: str = "dimensionless"
    reading: str = ""
    row_title: str = ""
    column_title: str = ""

    def __post_init__(self) -> None:
        _same(self.title, (len(self.rows), len(self.columns)), self.values.shape)


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """A lab's Shapley value for a target; `unit` is "dimensionless" for a share of variance."""

    lab: str
    target: str
    value: float
    unit: str = "dimensionless"
    is_flagged: bool = False


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Error at a lab of a model that never saw it, and of the same kind with it, in its unit."""

    lab: str
    target: str
    without: float
    included: float | None = None


@dataclass(frozen=True, kw_only=True)
class Importance:
    """How much larger the MAE of a target is with a feature, or a group, shuffled."""

    target: str
    feature: str
    increase: float
    spread: float = 0.0


@dataclass(frozen=True, kw_only=True)
class PartialDependence:
    """Mean prediction of a target (`y`, in its unit) against one feature (`x`, in `unit`).

    Attributes
    ----------
    x, y : ndarray of shape (n_points,)
    """

    target: str
    feature: str
    unit: str
    x: np.ndarray
    y: np.ndarray

    def __post_init__(self) -> None:
        _same(f"{self.target} against {self.feature}", self.x.shape, self.y.shape)


@dataclass(frozen=True, kw_only=True)
class InsideShare:
    """The share (0 to 1) of a lab's specimens that are like those the model learned from."""

    lab: str
    share: float
    num_specimens: int


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that may be told to every lab: numbers over many specimens, never over one.

    Attributes
    ----------
    notes : tuple of str
        What is missing, and why.
    """

    targets: tuple[Target, ...] = ()
    modes: tuple[ModeRow, ...] = ()
    labs: tuple[LabRow, ...] = ()
    rounds: tuple[TrainingRound, ...] = ()
    calibration: tuple[CalibrationRow, ...] = ()
    matrices: tuple[Matrix, ...] = ()
    contributions: tuple[Contribution, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    importances: tuple[Importance, ...] = ()
    dependences: tuple[PartialDependence, ...] = ()
    inside: tuple[InsideShare, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part in (
            self.modes,
            self.labs,
            self.calibration,
            self.contributions,
            self.left_out,
            self.importances,
            self.dependences,
        ):
            _known(part, self)


@dataclass(frozen=True, kw_only=True)
class ParitySeries:
    """Private: predictions of one lab's held-out specimens, one entry a specimen.

    Attributes
    ----------
    mode : str
        The label of the way of training.
    measured, predicted : ndarray of shape (n_specimens,), in the target's unit
    lower, upper : ndarray of shape (n_specimens,) or None
        Ends of the 90 % interval.
    """

    target: str
    mode: str
    lab: str
    measured: np.ndarray
    predicted: np.ndarray
    lower: np.ndarray | None = None
    upper: np.ndarray | None = None
    is_shared: bool = True

    def __post_init__(self) -> None:
        for values in (self.predicted, self.lower, self.upper):
            if values is not None:
                _same(f"{self.mode} at {self.lab}", self.measured.shape, values.shape)


@dataclass(frozen=True, kw_only=True)
class OwnSpecimen:
    """Private: one specimen of the lab that reads the page, in the target's unit."""

    specimen: str
    target: str
    predicted: float
    measured: float | None = None
    lower: float | None = None
    upper: float | None = None
    is_inside: bool | None = None


@dataclass(frozen=True, kw_only=True)
class CoordinatorReport:
    """For the coordinator, who knows all labs by name: can hold no single specimen."""

    head: Head
    evidence: Evidence


@dataclass(frozen=True, kw_only=True)
class Happening:
    """What a scenario let happen to a lab, in which rounds, in words."""

    lab: str
    kind: str
    rounds: str = ""
    words: str = ""


@dataclass(frozen=True, kw_only=True)
class SimulationReport:
    """For whoever has all data on one machine.

    Attributes
    ----------
    happened : tuple of Happening
        In a simulation with a scenario.
    virtual_time : str
        How long the rounds took in virtual time, in one sentence.
    """

    head: Head
    evidence: Evidence
    parity: tuple[ParitySeries, ...] = ()
    happened: tuple[Happening, ...] = ()
    virtual_time: str = ""

    def __post_init__(self) -> None:
        _known(self.parity, self.evidence)


@dataclass(frozen=True, kw_only=True)
class LabReport:
    """For one lab: its own specimens, beside what all labs may know."""

    head: Head
    lab: str
    evidence: Evidence
    parity: tuple[ParitySeries, ...] = ()
    specimens: tuple[OwnSpecimen, ...] = ()

    def __post_init__(self) -> None:
        _known(self.parity, self.evidence)
        _known(self.specimens, self.evidence)


Report = CoordinatorReport | SimulationReport | LabReport


class _OfTarget(Protocol):
    @property
    def target(self) -> str: ...


def _known(part: Sequence[_OfTarget], evidence: Evidence) -> None:
    """Refuse what would be left out of the page in silence."""
    named = [target.name for target in evidence.targets]
    for one in part:
        if one.target not in named:
            raise ValueError(
                f"{type(one).__name__} names the target {one.target!r}, which is not among "
                f"the report's targets {named}"
            )


def _same(what: str, expected: tuple[int, ...], found: tuple[int, ...]) -> None:
    if expected != found:
        raise ValueError(f"{what}: the values have the shape {found}, {expected} was expected")
