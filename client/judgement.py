"""What a released model is worth to a lab, judged at the lab on its held-out specimens.

Made once when the model comes: the lab's own version and its report both follow from it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from client.alone import train_own_model
from client.choice import ALONE, choose
from client.evaluation import predict_in_units, second_half
from client.lab import Lab
from client.learning_curve import points_of, power_of
from client.own_intervals import own_intervals
from client.own_version import OwnVersion
from client.verdict import HOLD, Comparison, Gain, gain_of
from client.versions import Versions
from common.bundle import Model
from common.errors import DivergedError
from common.release import Release

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a lab would use of a model, and how it does on the specimens that the lab held out.

    Attributes
    ----------
    own : OwnVersion
    joined : ndarray of shape (n_held_out, n_targets), in the targets' units
        Each specimen by the version of the shared head that was chosen without it.
    alone : ndarray of the same shape
        By the head that the lab trained on its own; NaN for a target that it does not have, and
        everywhere if that training did not stay finite.
    used : ndarray of the same shape
        As the lab predicts from now on: joined, or alone where the verdict is *hold*.
    gains : list of Gain
    """

    own: OwnVersion
    joined: np.ndarray
    alone: np.ndarray
    used: np.ndarray
    gains: list[Gain]


def judge(lab: Lab, release: Release) -> Judgement:
    """Choose the lab's versions and compare them with its own head.

    Raises
    ------
    RequestError
        If a prediction is not finite.
    """
    model, held_out = release.model, lab.held_out
    versions = Versions.of(model, lab.training, lab.federation, release.novelty)
    predictions = versions.predictions(held_out.features)
    halves = second_half(held_out, lab.federation.training.seed).astype(np.int64)
    choices = [
        choose(measured, {name: values[:, column] for name, values in predictions.items()}, halves)
        for column, measured in enumerate(held_out.targets.T)
    ]
    joined = np.stack([choice.predicted for choice in choices], axis=1)
    own_model, alone = _alone(lab)
    gains = _gains(lab, release, alone, predictions, halves)
    held = {gain.target for gain in gains if gain.verdict == HOLD}
    stays = np.array([target in held for target in lab.federation.targets])
    used = np.where(stays, alone, joined)
    return Judgement(
        own=OwnVersion(
            versions=versions,
            chosen=tuple(
                ALONE if stay else choice.version
                for stay, choice in zip(stays, choices, strict=True)
            ),
            offset=np.array([choice.offset for choice in choices]),
            intervals=own_intervals(lab, release, used, stays),
            alone=own_model if stays.any() else None,
        ),
        joined=joined,
        alone=alone,
        used=used,
        gains=gains,
    )


def _alone(lab: Lab) -> tuple[Model | None, np.ndarray]:
    """Return the lab's own model, and what it predicts of the held-out specimens."""
    training, held_out = lab.training, lab.held_out
    nothing = np.full(held_out.targets.shape, np.nan)
    try:
        own = train_own_model(lab.federation, training.features, training.targets, lab.name)
    except DivergedError as error:
        log.warning("%s: no head of its own to compare with: %s", lab.name, error)
        return None, nothing
    predicted = predict_in_units(own.head, own.standardiser, held_out.features)
    if not np.isfinite(predicted).all():
        log.warning("%s: no head of its own to compare with: it overflows", lab.name)
        return None, nothing
    return own, np.where(np.isfinite(training.targets).any(axis=0), predicted, nothing)


def _gains(
    lab: Lab,
    release: Release,
    alone: np.ndarray,
    versions: Mapping[str, np.ndarray],
    halves: np.ndarray,
) -> list[Gain]:
    federation, held_out = lab.federation, lab.held_out
    points = (
        []
        if release.novelty is None
        else points_of(0, lab, release.model.standardiser, release.novelty.directions)
    )
    found = []
    for column, (name, target) in enumerate(federation.targets.items()):
        comparison = Comparison(
            lab=lab.name,
            target=name,
            unit=target.unit,
            measured=held_out.targets[:, column],
            groups=held_out.groups,
            block=halves,
            seed=federation.training.seed,
            num_trained=int(np.isfinite(lab.training.targets[:, column]).sum()),
            alone=alone[:, column],
            versions={name: values[:, column] for name, values in versions.items()},
        )
        gain = gain_of(comparison, power_of(points, column))
        if gain is not None:
            found.append(gain)
    return found
