"""Which parts of a micrograph carry a prediction: hide one after the other (occlusion).

Zeiler & Fergus 2014 (ECCV, arXiv 1311.2901). A part is hidden under the image's mean grey, and the
whole chain runs again, so that descriptors see it too. It stays at the lab.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from client import tiles
from client.describing import describe_micrograph
from client.engines import Engine
from client.micrographs import read_micrograph
from client.pooling import pool_descriptors, pool_tiles
from client.preparation import PrepareTask
from common.federation import Imaging
from common.threads import one_thread

PARTS = 12
"""How many parts lie along the longer side."""


@dataclass(frozen=True, kw_only=True)
class Saliency:
    """What predictions change by when parts of a micrograph are hidden.

    Attributes
    ----------
    grey : ndarray of shape (height, width), float32 in [0, 1]
    rows, columns : ndarray of shape (n_rows + 1,) and (n_columns + 1,), in px
        Edges of the parts.
    predicted : ndarray of shape (n_targets,)
        With nothing hidden, in the targets' units.
    change : ndarray of shape (n_rows, n_columns, n_targets)
        Hidden minus whole, in the targets' units: below zero where the part raises the prediction.
    """

    grey: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    predicted: np.ndarray
    change: np.ndarray


def occlusion(
    grey: np.ndarray, predict: Callable[[np.ndarray], np.ndarray], parts: int = PARTS
) -> Saliency:
    """Hide one part of a micrograph after the other.

    Parameters
    ----------
    grey : ndarray of shape (height, width), float32 in [0, 1]
    predict : callable
        From such an image to predictions of shape (n_targets,), in the targets' units.
    parts : int
        Along the longer side; parts are about square.

    Examples
    --------
    >>> image = np.array([[0.0, 1.0], [1.0, 0.0]], dtype=np.float32)
    >>> found = occlusion(image, lambda shown: np.array([100 * shown[0, 1]]), parts=2)
    >>> found.change[:, :, 0].tolist()
    [[0.0, -50.0], [0.0, 0.0]]
    """
    side = max(1, ceil(max(grey.shape) / parts))
    rows, columns = (np.unique([*range(0, length, side), length]) for length in grey.shape)
    whole = predict(grey)
    change = np.empty((len(rows) - 1, len(columns) - 1, len(whole)))
    for i, j in np.ndindex(*change.shape[:2]):
        hidden = grey.copy()
        hidden[rows[i] : rows[i + 1], columns[j] : columns[j + 1]] = grey.mean()
        change[i, j] = predict(hidden) - whole
    return Saliency(grey=grey, rows=rows, columns=columns, predicted=whole, change=change)


class SpecimenView:
    """A specimen's features as they would be if one of its micrographs looked otherwise.

    Only tiles that changed go through the network again.

    Parameters
    ----------
    tasks : sequence of PrepareTask
        Of all micrographs of the specimen.
    shown : int
        Which of them is to be changed.
    engine : Engine
    covariates : ndarray of shape (n_covariates,)
        Of the specimen.
    """

    def __init__(
        self, tasks: Sequence[PrepareTask], shown: int, engine: Engine, covariates: np.ndarray
    ) -> None:
        self._task, self._engine, self._covariates = tasks[shown], engine, covariates
        images = [read_micrograph(task.path, task.data) for task in tasks]
        self.grey = images.pop(shown)
        others = [task for task in tasks if task is not self._task]
        self._imaging: Imaging = self._task.imaging
        self._tiles = self._cut(self.grey, self._task)
        with one_thread():
            self._vectors = engine.vectors(self._tiles)
            self._other_vectors = [
                engine.vectors(self._cut(image, task))
                for image, task in zip(images, others, strict=True)
            ]
        self._other_descriptors = [
            self._describe(image, task) for image, task in zip(images, others, strict=True)
        ]

    def features(self, grey: np.ndarray) -> np.ndarray:
        """Return the specimen's features with `grey` in place of the micrograph.

        Returns
        -------
        ndarray of shape (n_features,), float32, as extracted
        """
        cut = self._cut(grey, self._task)
        changed = (cut != self._tiles).any(axis=(1, 2))
        vectors = self._vectors.copy()
        if changed.any():
            with one_thread():
                vectors[changed] = self._engine.vectors(cut[changed])
        pooled = pool_tiles(np.concatenate([vectors, *self._other_vectors]), self._imaging)
        described = [self._describe(grey, self._task), *self._other_descriptors]
        parts = [
            pooled,
            pool_descriptors(
                np.stack(described),
                self._task.descriptors,
                has_scale=self._imaging.scale == "physical",
            ),
            self._covariates,
        ]
        return np.concatenate([part.astype(np.float32) for part in parts])

    def _plan(self, grey: np.ndarray, task: PrepareTask) -> tiles.TilePlan:
        return tiles.plan(grey.shape[0], grey.shape[1], task.um_per_px, task.imaging)

    def _cut(self, grey: np.ndarray, task: PrepareTask) -> np.ndarray:
        return tiles.cut(grey, self._plan(grey, task))

    def _describe(self, grey: np.ndarray, task: PrepareTask) -> np.ndarray:
        if not task.descriptors:
            return np.empty(0)
        return describe_micrograph(grey, task.um_per_px, task.imaging, task.descriptors)
