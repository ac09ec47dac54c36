"""What the folds of a simulation leave beside the modes' predictions: what its report is made of.

Everything here is about held-out specimens, filled in fold by fold like the predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from client.alone import Predictor
from client.choice import OWN_VERSIONS
from client.lab import Lab
from client.learning_curve import CurvePoint, points_of
from client.specimens import Specimens
from client.uncertainty import spread_in_units
from client.versions import Versions
from common.bundle import Model
from common.report.content import MOST_LABS
from server.evidence import Products
from server.state import RunResult


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Arrays in the order of the labs; NaN where there is nothing.

    Attributes
    ----------
    spread : list of ndarray of shape (n_specimens, n_targets)
        Of the federated head's predictions, in the targets' units.
    versions : dict of str to list of ndarray of shape (n_specimens, n_targets)
        Predictions by a lab's own versions of the head, by their names in `client.choice`; of ridge
        regression as ``ridge``, and without the lab itself as ``left out``.
    novelty : list of ndarray of shape (n_specimens, 1)
        Distances from the training specimens of the same fold.
    cross : list of list of ndarray
        ``cross[i][j]``: predictions of lab i's own head for the specimens of lab j.
    curve : list of CurvePoint
        Errors of ridge regression on parts of a lab's own specimens.
    products : list of Products
        Of each fold.
    models : list of Model
        The federated head of each fold.
    results : list of RunResult
        What each fold's federated run ended with.
    """

    spread: list[np.ndarray]
    versions: dict[str, list[np.ndarray]]
    novelty: list[np.ndarray]
    cross: list[list[np.ndarray]]
    curve: list[CurvePoint] = field(default_factory=list)
    products: list[Products] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)
    results: list[RunResult] = field(default_factory=list)

    @classmethod
    def empty(cls, labs: Sequence[Specimens]) -> Evidence:
        """Return arrays of NaN for the specimens of some labs."""

        def nothing() -> list[np.ndarray]:
            return [np.full(lab.targets.shape, np.nan) for lab in labs]

        names = (*OWN_VERSIONS, "ridge", "left out")
        return cls(
            spread=nothing(),
            versions={name: nothing() for name in names},
            novelty=[np.full((len(lab), 1), np.nan) for lab in labs],
            # of all pairs, a matrix is shown for a few labs only
            cross=[nothing() for _ in labs] if len(labs) <= MOST_LABS else [],
        )


def note_federated(
    evidence: Evidence, labs: Sequence[Lab], held_out: Sequence[np.ndarray], result: RunResult
) -> None:
    """Fill in what follows from one fold's federated run.

    Parameters
    ----------
    evidence : Evidence
    labs : sequence of Lab
    held_out : sequence of ndarray of shape (n_specimens,), bool
        Of each lab, which specimens this fold holds out.
    result : RunResult
    """
    head, standardiser = result.head, result.standardiser
    fingerprint = labs[0].federation.fingerprint()
    model = Model(head=head, standardiser=standardiser, fingerprint=fingerprint)
    evidence.models.append(model)
    evidence.results.append(result)
    novelty = None if result.products is None else result.products.novelty
    for index, (lab, rows) in enumerate(zip(labs, held_out, strict=True)):
        features, federation = lab.held_out.features, lab.federation
        evidence.spread[index][rows] = spread_in_units(head, standardiser, features, federation)
        own = Versions.of(model, lab.training, federation, novelty).predictions(features)
        for name in OWN_VERSIONS:
            if name in own:
                evidence.versions[name][index][rows] = own[name]
        if novelty is not None:
            scores = novelty.score(standardiser.features(features))
            evidence.novelty[index][rows] = scores[:, None]
    if result.products is not None:
        evidence.products.append(result.products)
        _note_products(evidence, labs, held_out, result, result.products)


def note_local(
    evidence: Evidence,
    labs: Sequence[Lab],
    held_out: Sequence[np.ndarray],
    predictors: Sequence[Predictor],
) -> None:
    """Fill in what every lab's own head of one fold predicts for the others' specimens."""
    if not evidence.cross:
        return
    for of_head, predict in zip(evidence.cross, predictors, strict=True):
        for lab, rows, predicted in zip(labs, held_out, of_head, strict=True):
            predicted[rows] = predict(lab.held_out.features)


def _note_products(
    evidence: Evidence,
    labs: Sequence[Lab],
    held_out: Sequence[np.ndarray],
    result: RunResult,
    products: Products,
) -> None:
    of_labs = products.of_labs
    left_out = products.left_out
    for index, (lab, rows) in enumerate(zip(labs, held_out, strict=True)):
        if lab.name not in of_labs:
            continue
        z = result.standardiser.features(lab.held_out.features) @ products.basis
        fits = {"ridge": products.ridge}
        if lab.name in left_out:
            fits["left out"] = left_out[lab.name]
        for name, fit in fits.items():
            predicted = result.standardiser.in_units(fit.predict(z))
            evidence.versions[name][index][rows] = predicted
        evidence.curve.extend(points_of(index, lab, result.standardiser, products.basis))
