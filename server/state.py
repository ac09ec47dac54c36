"""What rounds hand on: the record of one, the state between two, and what a run ends with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Literal

import numpy as np

from common.head import HeadArrays
from common.projection import folded
from common.round_log import RoundLine
from common.standardise import Standardiser
from server.evidence import CrossErrors, Evaluation, Products
from server.roster import Roster


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """What happened in one round: the loss, who took part, and who did not and why.

    Attributes
    ----------
    failed, quarantined : dict of str to str
        Labs that gave no update, and labs whose update broke the schema, with the reason.
    out : tuple of str
        Labs that were out before: absent from the start, refused, quarantined or revoked.
    """

    server_round: int
    train_loss: float
    labs: tuple[str, ...]
    failed: dict[str, str]
    quarantined: dict[str, str]
    out: tuple[str, ...] = ()

    def line(
        self, *, fold: int | None = None, seconds: float | None = None, time: str | None = None
    ) -> RoundLine:
        """Return the round's line of ``rounds.jsonl``, where a loss is a number or none."""
        loss = self.train_loss if isfinite(self.train_loss) else None
        return RoundLine(**vars(self) | {"train_loss": loss}, fold=fold, seconds=seconds, time=time)


@dataclass(frozen=True, kw_only=True)
class RoundState:
    """What one round hands to the next.

    Attributes
    ----------
    server_round : int
        The last round that counted; 0 before the first.
    optimizer : mapping of str to ndarray
        What the strategy carries beside the head: momentum and the like.
    """

    server_round: int
    head: HeadArrays
    optimizer: Mapping[str, np.ndarray] = field(default_factory=dict)
    history: tuple[RoundRecord, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come: all that a coordinator needs to go on after a restart.

    Attributes
    ----------
    phase : str
        ``evaluated`` when the shared head has been tried, ``finished`` when nothing is left to try.
    projection : ndarray of shape (n_features, n_components), float32, or None
        What the head's inputs are made with, if that was agreed.
    products : Products or None
        Summed before the first round under the strategy ``ridge``, after the last one else.
    crossed : mapping of str to mapping of str to ndarray
        As in `RunResult`.
    released : tuple of str
        Labs that have said that they have kept the model.
    """

    phase: Literal["train", "evaluated", "finished"]
    roster: Roster
    standardiser: Standardiser
    state: RoundState
    projection: np.ndarray | None = None
    products: Products | None = None
    evaluation: Evaluation = field(default_factory=Evaluation)
    crossed: CrossErrors = field(default_factory=dict)
    released: tuple[str, ...] = ()

    @property
    def unreleased(self) -> tuple[str, ...]:
        """The labs of the run that have not got the model yet."""
        return tuple(sorted(set(self.roster.names.values()) - set(self.released)))

    @property
    def head(self) -> HeadArrays:
        """The head as it is evaluated and released: it takes standardised features."""
        return folded(self.state.head, self.projection)

    def result(self) -> RunResult:
        """Return what the run ends with."""
        return RunResult(
            head=self.head,
            standardiser=self.standardiser,
            history=self.state.history,
            labs=tuple(sorted(self.roster.names.values())),
            num_examples=self.roster.named(self.roster.buckets),
            standardised=tuple(self.roster.standardised),
            named_in_card=tuple(sorted(self.roster.named_in_card)),
            excluded=self.roster.excluded,
            products=self.products,
            evaluation=self.evaluation,
            crossed=self.crossed,
            released=self.released,
        )


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run ends with.

    Attributes
    ----------
    labs : tuple of str
        Those that were in at the end.
    num_examples : dict of str to int
        Training specimens of each lab that shook hands, rounded down by the lab itself.
    standardised : tuple of str
        Those whose sums the standardiser was made of.
    named_in_card : tuple of str
        Those that let the released model name them.
    excluded : dict of str to str
        Labs that were refused or quarantined, with the reason.
    products : Products or None
        Sums that the linear baseline and each lab's contribution follow from.
    evaluation : Evaluation
    crossed : mapping of str to mapping of str to ndarray
        What each lab's own head is worth at each lab (`server.evidence.CrossErrors`).
    released : tuple of str
        Labs that have the model.
    """

    head: HeadArrays
    standardiser: Standardiser
    history: tuple[RoundRecord, ...]
    labs: tuple[str, ...]
    num_examples: dict[str, int]
    standardised: tuple[str, ...]
    named_in_card: tuple[str, ...]
    excluded: dict[str, str]
    products: Products | None
    evaluation: Evaluation
    crossed: CrossErrors
    released: tuple[str, ...]

    @property
    def took_part(self) -> tuple[str, ...]:
        """Labs that took part in a round, sorted."""
        return tuple(sorted({lab for record in self.history for lab in record.labs}))

    @property
    def unnamed(self) -> tuple[str, ...]:
        """Those of them that the released model does not name."""
        return tuple(sorted({*self.took_part} - {*self.named_in_card}))
