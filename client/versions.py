"""The versions of a shared head that a lab may use: as it is, personalised, on aligned features.

Which of them, for which target, `client.choice` decides on held-out specimens; an offset is found
there too.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from client.alignment import Alignment, find_alignment
from client.choice import ALIGNED, CORAL, OWN_VERSIONS, PERSONALISED, SHARED
from client.evaluation import predict_in_units
from client.personalise import personalised
from client.specimens import Specimens
from common.bundle import Model
from common.errors import DivergedError
from common.federation import Federation
from common.head import HeadArrays, predict
from common.novelty import Novelty

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Versions:
    """A lab's versions of one model.

    Attributes
    ----------
    model : Model
    personalised : mapping of name to ndarray, or None
        The head with its last layer trained at the lab; None where that did not stay finite.
    novelty : Novelty or None
        None where no lab told sums of products: features cannot be aligned then.
    alignments : mapping of str to Alignment
        By the name of the version.
    """

    model: Model
    personalised: HeadArrays | None
    novelty: Novelty | None = None
    alignments: Mapping[str, Alignment] = field(default_factory=dict)

    @classmethod
    def of(
        cls, model: Model, training: Specimens, federation: Federation, novelty: Novelty | None
    ) -> Versions:
        """Make the versions of a lab with these training specimens."""
        features = model.standardiser.features(training.features)
        targets = model.standardiser.targets(training.targets)
        try:
            own = personalised(model.head, features, targets, federation, training.lab)
        except DivergedError as error:
            log.warning("%s: no personalised head: %s", training.lab, error)
            own = None
        alignments = {}
        if novelty is not None:
            alignments = {
                ALIGNED: find_alignment(features, novelty, correlations=False),
                CORAL: find_alignment(features, novelty, correlations=True),
            }
        return cls(model=model, personalised=own, novelty=novelty, alignments=alignments)

    def predictions(
        self, features: np.ndarray, asked: Collection[str] = OWN_VERSIONS
    ) -> dict[str, np.ndarray]:
        """Predict by the shared head as it is, and by the lab's versions that are asked for.

        Parameters
        ----------
        features : ndarray of shape (n_specimens, n_features), as extracted
        asked : collection of str

        Returns
        -------
        dict of str to ndarray of shape (n_specimens, n_targets), in the targets' units
        """
        standardiser = self.model.standardiser
        found = {SHARED: predict_in_units(self.model.head, standardiser, features)}
        if self.personalised is not None and PERSONALISED in asked:
            found[PERSONALISED] = predict_in_units(self.personalised, standardiser, features)
        aligned = {name: a for name, a in self.alignments.items() if name in asked}
        standardised = standardiser.features(features) if aligned else features
        for name, alignment in aligned.items():
            assert self.novelty is not None
            outputs = predict(self.model.head, alignment(standardised, self.novelty))
            found[name] = standardiser.in_units(outputs)
        return found
