"""What one process does for a sweep: one federation, trained and tried on some splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np

from client.lab import Lab
from client.specimens import Specimens
from common.federation import Federation
from common.projection import trained_shapes
from common.threads import one_thread
from simulation.modes import federated
from simulation.scenarios.events import Diary
from simulation.scenarios.label_faults import training_on
from simulation.scenarios.scenario import Scenario
from simulation.scenarios.scripted import Scripted

ABSENT, TRAINED_ON, HELD_OUT = 0, 1, 2
"""What a specimen is in one run."""

FLOAT_BYTES = 4

Roles = tuple[np.ndarray, ...]
"""For each lab, of shape (n_specimens,), int8: what each specimen is in one run."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The specimens of all labs under one setting of the features, as they reach a process.

    Attributes
    ----------
    labs : tuple of Specimens
        Their features are empty.
    written : tuple of ndarray of shape (n_specimens, n_targets)
        What each lab trains on: other than what was measured where a scenario says so.
    features : Path
        An ``.npy`` file with the rows of all labs, which processes share.
    """

    labs: tuple[Specimens, ...]
    written: tuple[np.ndarray, ...]
    features: Path

    def opened(self) -> list[Specimens]:
        """Return the specimens with their features, of which only what is asked for is read."""
        rows = np.load(self.features, mmap_mode="r")
        ends = np.cumsum([len(lab) for lab in self.labs])[:-1]
        parts = np.split(rows, ends)
        return [replace(lab, features=part) for lab, part in zip(self.labs, parts, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A federation to try.

    Attributes
    ----------
    federation : Federation
    prepared : Prepared
    runs : tuple of Roles
        A federation is trained once for each; no specimen is held out twice.
    engine : str
        A key of `simulation.engine`.
    scenario : Scenario or None
        What befalls the labs, the same in every trial.
    """

    federation: Federation
    prepared: Prepared
    runs: tuple[Roles, ...]
    engine: str
    scenario: Scenario | None = None

    def run(self) -> list[np.ndarray]:
        """Train, and predict what each run holds out.

        Returns
        -------
        list of ndarray of shape (n_specimens, n_targets), in the targets' units
            One a lab; NaN for specimens that no run held out.

        Raises
        ------
        CrossplyError
            If these settings cannot be trained, for example because they diverge.
        """
        labs = self.prepared.opened()
        predicted = [np.full(lab.targets.shape, np.nan) for lab in labs]
        with one_thread():
            for number, roles in enumerate(self.runs):
                found = federated(
                    self._labs(labs, roles), engine=self.engine, scripted=self._scripted(number)
                )
                for target, role, values in zip(predicted, roles, found, strict=True):
                    target[role == HELD_OUT] = values
        return predicted

    def _scripted(self, number: int) -> Scripted | None:
        if self.scenario is None:
            return None
        return Scripted(scenario=self.scenario, diary=Diary(), fold=number)

    def _labs(self, labs: Sequence[Specimens], roles: Roles) -> list[Lab]:
        """Return the labs of one run.

        A lab shares a target if it has measured it often enough, specimens of the outer test
        counted too: as it will when the settings are used. Of a part of its specimens the same
        rule would leave out small labs.
        """
        privacy = self.federation.privacy.replace(min_specimens=2)
        agreement = self.federation.replace(privacy=privacy.model_dump())
        found = []
        for lab, written, role in zip(labs, self.prepared.written, roles, strict=True):
            measured = np.isfinite(lab.targets).sum(axis=0)
            shares = measured >= self.federation.privacy.min_specimens
            shared = replace(lab, targets=np.where(shares, lab.targets, np.nan))
            made = Lab(
                federation=agreement,
                training=shared.take(role == TRAINED_ON),
                held_out=shared.take(role == HELD_OUT),
            )
            kept = np.where(shares, written, np.nan)[role == TRAINED_ON]
            found.append(training_on(made, kept))
        return found


def bytes_sent(federation: Federation, num_labs: int) -> int:
    """Return how many bytes of weights travel in a run: down to each lab and up, each round.

    A projection on principal components goes down with them. Statistics, sums of products and
    metrics, which every run sends once, are not counted, nor is what frames a message.

    Parameters
    ----------
    federation : Federation
    num_labs : int

    Examples
    --------
    >>> federation = Federation.model_validate(
    ...     {
    ...         "name": "test",
    ...         "targets": {"strength": {"unit": "MPa", "range": [0, 200]}},
    ...         "imaging": {"scale": "fit"},
    ...         "backbone": {"name": "resnet18"},
    ...         "head": {"hidden": []},
    ...         "training": {"rounds": 10},
    ...     }
    ... )
    >>> bytes_sent(federation, num_labs=3) == 10 * 3 * 2 * (512 + 1) * 4
    True
    """
    weights = sum(prod(shape) for shape in trained_shapes(federation).values())
    head = federation.head
    sent = federation.num_features * head.num_components if head.projection == "pca" else 0
    return federation.training.rounds * num_labs * (2 * weights + sent) * FLOAT_BYTES
