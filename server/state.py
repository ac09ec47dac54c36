"""What rounds hand on: the record of one, the state between two, and what a run ends with."""

from __future__ import annotations

from dataclasses import dataclass

from common.head import HeadArrays
from common.metrics import ErrorSums
from common.standardise import Standardiser


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """What happened in one round: the loss, who took part, and who did not and why."""

    server_round: int
    train_loss: float
    labs: tuple[str, ...]
    failed: dict[str, str]
    quarantined: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class RoundState:
    """What one round hands to the next."""

    server_round: int
    head: HeadArrays
    history: tuple[RoundRecord, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run ends with.

    Attributes
    ----------
    labs : tuple of str
        Those that were in at the end.
    excluded : dict of str to str
        Labs that were refused or quarantined, with the reason.
    evaluation : dict of str to ErrorSums
        Of each lab that has enough held-out specimens to share the sums of their errors.
    """

    head: HeadArrays
    standardiser: Standardiser
    history: tuple[RoundRecord, ...]
    labs: tuple[str, ...]
    excluded: dict[str, str]
    evaluation: dict[str, ErrorSums]
