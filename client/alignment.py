"""A lab's features with everyone's mean and spread, for a microscope that sees things its own way.

Along the directions that novelty is measured in, where all labs' specimens together have mean zero
and spread one: direction by direction, or also their correlations (CORAL, Sun, Feng & Saenko 2016,
AAAI, arXiv 1511.05547). Labs differ in their materials too, and often it makes matters worse: a lab
uses it only where it is better on held-out specimens (`client.choice`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.novelty import Novelty

SHRINKAGE = 20.0
"""How many specimens' worth of everyone's mean and spread a lab's own are mixed with."""


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """A map of one lab's coordinates: z @ matrix + offset.

    Attributes
    ----------
    matrix : ndarray of shape (n_directions, n_directions)
    offset : ndarray of shape (n_directions,)
    """

    matrix: np.ndarray
    offset: np.ndarray

    def __call__(self, features: np.ndarray, novelty: Novelty) -> np.ndarray:
        """Move standardised features along the directions; the rest of them stays.

        Parameters
        ----------
        features : ndarray of shape (n_specimens, n_features)
        novelty : Novelty

        Returns
        -------
        ndarray of shape (n_specimens, n_features), float32
        """
        z = _coordinates(features, novelty)
        moved = z @ self.matrix + self.offset - z
        aligned: np.ndarray = features + moved @ novelty.inverse
        return aligned.astype(np.float32, copy=False)


def find_alignment(features: np.ndarray, novelty: Novelty, *, correlations: bool) -> Alignment:
    """Return the map that gives a lab's features everyone's mean and spread.

    Parameters
    ----------
    features : ndarray of shape (n_specimens, n_features), standardised
        Of the lab's training specimens.
    novelty : Novelty
    correlations : bool
        Whether directions are also decorrelated, as they are over all labs.

    Examples
    --------
    >>> novelty = Novelty(directions=np.eye(1), mean=np.zeros(1), threshold=2.0)
    >>> own = np.array([[3.0], [5.0]] * 500)
    >>> aligned = find_alignment(own, novelty, correlations=False)(own, novelty)
    >>> aligned[:2, 0].astype(float).round(1).tolist()
    [-0.9, 1.1]
    """
    z = _coordinates(features, novelty)
    share = len(z) / (len(z) + SHRINKAGE)
    spread = share * np.atleast_2d(np.cov(z, rowvar=False, bias=True))
    spread += (1 - share) * np.eye(len(spread))
    if correlations:
        # who predicts with an alignment that was found has no need of it
        import scipy.linalg

        sizes, vectors = scipy.linalg.eigh(spread)
        matrix = (vectors / np.sqrt(sizes)) @ vectors.T
    else:
        matrix = np.diag(1.0 / np.sqrt(np.diag(spread)))
    return Alignment(matrix=matrix, offset=-share * z.mean(axis=0) @ matrix)


def _coordinates(features: np.ndarray, novelty: Novelty) -> np.ndarray:
    z: np.ndarray = np.asarray(features, np.float64) @ novelty.directions - novelty.mean
    return z
