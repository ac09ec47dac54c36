"""Specimens for trials: features are made once for each setting that changes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from client.dataset import Dataset
from client.specimens import Specimens
from common.errors import LabDataError, StateError
from common.federation import Federation
from simulation.consortium import Consortium
from simulation.scenarios.label_faults import written_targets
from simulation.scenarios.scenario import Scenario
from simulation.sweep.trial import Prepared

OpenConsortium = Callable[[Federation], Consortium]


MOST_KEPT = 64
"""Settings of features whose tables lie on the disk at once, more than there are processes."""


class Preparer:
    """Keeps the specimens of a sweep ready for its processes.

    Parameters
    ----------
    open_consortium : callable
        Makes the labs' features under a federation.
    folder : Path
        Where features lie while the sweep runs; they are removed with it.
    own : Federation
        The file's settings: their specimens are what every trial is tried on.
    scenario : Scenario or None
        What is wrong with labs' tables.
    """

    def __init__(
        self,
        open_consortium: OpenConsortium,
        folder: Path,
        own: Federation,
        scenario: Scenario | None = None,
    ) -> None:
        self._open, self._folder = open_consortium, folder
        self._known: dict[str, Prepared] = {}
        self._num_made = 0
        self.own = open_consortium(own)
        self._written = tuple(written_targets(self.own, scenario or Scenario()))
        self._keep(own, self.own)

    def prepared(self, federation: Federation) -> Prepared:
        """Return the specimens under a federation's features.

        Raises
        ------
        LabDataError
            If these features cannot be made of every specimen that the file's own are made of:
            trials on different specimens cannot be compared.
        """
        found = self._known.get(_setting(federation))
        if found is None:
            consortium = self._open(federation)
            kept, expected = (
                {lab.lab: lab.ids for lab in one.labs} for one in (consortium, self.own)
            )
            if kept != expected:
                counts = (sum(map(len, ids.values())) for ids in (kept, expected))
                raise LabDataError(
                    "{} specimens have features under these settings, and {} under the file's "
                    "own; trials are compared on the same".format(*counts)
                )
            found = self._keep(federation, consortium)
        return found

    def _keep(self, federation: Federation, consortium: Consortium) -> Prepared:
        path = self._folder / f"features-{self._num_made}.npy"
        self._num_made += 1
        try:
            np.save(path, np.concatenate([lab.features for lab in consortium.labs]))
        except OSError as error:
            why = error.strerror or "the disk is full"
            raise StateError(
                f"{self._folder.parent}: features for the trials cannot be written ({why}); make "
                "room, and run the same command again"
            ) from error
        # folds, groups and measured values are the file's own, whatever the features
        labs = tuple(map(_without_features, self.own.labs))
        made = Prepared(labs=labs, written=self._written, features=path)
        self._known[_setting(federation)] = made
        if len(self._known) > MOST_KEPT:
            # the oldest but the file's own, which comes first; it is made again if it is asked for
            oldest = list(self._known)[1]
            self._known.pop(oldest).features.unlink()
        return made


def data_digest(datasets: Sequence[Dataset]) -> str:
    """Return a hash of what labs brought: inputs, never features, which rounding may move.

    Parameters
    ----------
    datasets : sequence of Dataset
    """
    digest = hashlib.sha256()
    for dataset in datasets:
        settings = dataset.settings.model_dump_json()
        images = [
            [(image.name, image.sha256, image.um_per_px) for image in of_specimen]
            for of_specimen in dataset.micrographs
        ]
        named = [dataset.name, settings, dataset.specimens, images, dataset.partition]
        digest.update(json.dumps(named).encode())
        for array in (dataset.targets, dataset.covariates, dataset.groups):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _setting(federation: Federation) -> str:
    """Name what features follow from: all but how the head is made and trained."""
    return federation.model_dump_json(exclude={"name", "head", "training"})


def _without_features(lab: Specimens) -> Specimens:
    return replace(lab, features=np.empty((len(lab), 0), np.float32))
