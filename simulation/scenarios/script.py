"""What is to befall labs in the rounds of one fold: drawn from the seed, whatever the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from common.federation import Federation
from common.seeds import seed_for
from common.units import seconds
from simulation.scenarios.scenario import Hostile, Scenario, of_lab
from simulation.scenarios.virtual_labs import seed_of

LEFT, AWAY, DROPPED_OUT, LATE = "left for good", "away", "dropped out", "late"


@dataclass(frozen=True, kw_only=True)
class Script:
    """A scenario's rounds, for labs of known sizes.

    Attributes
    ----------
    scenario : Scenario
    federation : Federation
    num_training : mapping of str to int
        Training specimens of each lab in this fold.
    fold : int
    """

    scenario: Scenario
    federation: Federation
    num_training: Mapping[str, int]
    fold: int

    @cached_property
    def deadline(self) -> float:
        """Seconds after which a reply is late."""
        return seconds(self.federation.training.round_deadline)

    @property
    def has_times(self) -> bool:
        """Whether labs take any time."""
        return self.scenario.seconds_per_specimen is not None

    @property
    def has_chances(self) -> bool:
        """Whether another attempt at a round may go otherwise."""
        return any(0 < chance < 1 for chance in self.scenario.dropout.values())

    def has_left(self, lab: str, server_round: int) -> bool:
        """Tell whether a lab has left for good in a round or before."""
        return server_round >= self.scenario.leave.get(lab, server_round + 1)

    def missing(self, lab: str, server_round: int, attempt: int) -> str | None:
        """Return why a lab gives no update, or None if it does.

        Whether it drops out is drawn for each lab, round and attempt by itself, so that no lab's
        fate hangs on another's.
        """
        if self.has_left(lab, server_round):
            return LEFT
        if server_round in self.scenario.away.get(lab, ()):
            return AWAY
        chance = of_lab(self.scenario.dropout, lab)
        names = ("dropout", self.fold, lab, server_round, attempt)
        if chance and np.random.default_rng(self._seed(*names)).random() < chance:
            return DROPPED_OUT
        is_late = self.has_times and self.duration(lab, server_round) > self.deadline
        return LATE if is_late else None

    def duration(self, lab: str, server_round: int) -> float:
        """Return the seconds in which a lab trains: specimens times epochs times its slowness.

        A free rider takes none.
        """
        attack = self.attack(lab, server_round)
        if attack is not None and attack.attack == "free_rider":
            return 0.0
        passes = self.num_training[lab] * self.federation.training.local_epochs
        return (self.scenario.seconds_per_specimen or 0.0) * passes * self._slowness[lab]

    def attack(self, lab: str, server_round: int) -> Hostile | None:
        """Return what a hostile lab does to its update in a round, if anything."""
        hostile = self.scenario.hostile.get(lab)
        if hostile is None or hostile.attack == "label_scale" or server_round < hostile.from_round:
            return None
        return hostile

    @cached_property
    def _slowness(self) -> dict[str, float]:
        """Factors on the time that labs take: lognormal of median one, times `slow`."""
        spread = self.scenario.speed_spread or 0.0
        drawn = {
            lab: float(np.exp(spread * np.random.default_rng(self._seed("speed", lab)).normal()))
            for lab in self.num_training
        }
        return {lab: factor * self.scenario.slow.get(lab, 1.0) for lab, factor in drawn.items()}

    def _seed(self, *names: int | str) -> int:
        return seed_for(seed_of(self.scenario, self.federation), "scenario", *names)
