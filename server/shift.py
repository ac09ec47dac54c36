"""How far the labs' features lie apart, and what brings them together, from summed moments.

Distance: Fréchet distance of two normal distributions (Dowson & Landau 1982), known from image
generation (Heusel et al. 2017, arXiv 1706.08500). Alignment: each lab's features get the mean and
the spread of all labs' together, direction by direction, or also their correlations (CORAL, Sun,
Feng & Saenko 2016, AAAI, arXiv 1511.05547).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import scipy.linalg

from common.gram import GramSums

Kind: TypeAlias = Literal["mean-variance", "coral"]

SHRINKAGE = 20.0
"""How many specimens' worth of everyone's spread a lab's own is mixed with."""


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """A map of one lab's coordinates: z @ matrix + offset.

    Attributes
    ----------
    matrix : ndarray of shape (n_components, n_components)
    offset : ndarray of shape (n_components,)
    """

    matrix: np.ndarray
    offset: np.ndarray

    def __call__(self, coordinates: np.ndarray) -> np.ndarray:
        """Map coordinates of shape (n_specimens, n_components)."""
        mapped: np.ndarray = coordinates @ self.matrix + self.offset
        return mapped


def distances(of_labs: Mapping[str, GramSums]) -> np.ndarray:
    """Return the distance of every two labs, in deviations of all labs' specimens together.

    Returns
    -------
    ndarray of shape (n_labs, n_labs)
        Zero where two labs' features have one mean and one spread; one where they lie a standard
        deviation apart.

    Examples
    --------
    >>> z = np.array([[-1.0], [1.0]] * 20)
    >>> def sums(values: np.ndarray) -> GramSums:
    ...     return GramSums.of(values, np.zeros((len(values), 1)))
    >>> distances({"a": sums(z), "b": sums(z), "c": sums(z + 4)}).round(2).tolist()
    [[0.0, 0.0, 1.87], [0.0, 0.0, 1.87], [1.87, 1.87, 0.0]]
    """
    moments = [sums.mean_and_covariance() for sums in of_labs.values()]
    everyone = GramSums.total(of_labs.values()).mean_and_covariance()[1]
    scale = float(np.trace(everyone))
    roots = [_power(covariance, 0.5) for _, covariance in moments]
    found = np.zeros((len(moments), len(moments)))
    for one, (mean, covariance) in enumerate(moments):
        for other in range(one):
            crossed = _power(roots[one] @ moments[other][1] @ roots[one], 0.5)
            spread = np.trace(covariance) + np.trace(moments[other][1]) - 2 * np.trace(crossed)
            apart = ((mean - moments[other][0]) ** 2).sum() + max(float(spread), 0.0)
            found[one, other] = found[other, one] = np.sqrt(apart / max(scale, 1e-300))
    return found


def alignments(of_labs: Mapping[str, GramSums], kind: Kind) -> dict[str, Alignment]:
    """Return, for each lab, the map that gives its features everyone's mean and spread.

    A lab's spread is mixed with everyone's: one that few specimens tell of is hardly changed.
    """
    mean, covariance = GramSums.total(of_labs.values()).mean_and_covariance()
    found = {}
    for lab, sums in of_labs.items():
        own_mean, own = sums.mean_and_covariance()
        share = sums.num_examples / (sums.num_examples + SHRINKAGE)
        mixed = share * own + (1 - share) * covariance
        if kind == "mean-variance":
            scale = np.sqrt(np.diag(covariance) / np.maximum(np.diag(mixed), 1e-300))
            matrix = np.diag(scale)
        else:
            matrix = _power(mixed, -0.5) @ _power(covariance, 0.5)
        found[lab] = Alignment(matrix=matrix, offset=mean - own_mean @ matrix)
    return found


def aligned(of_labs: Mapping[str, GramSums], maps: Mapping[str, Alignment]) -> dict[str, GramSums]:
    """Return the sums as they would be over aligned specimens."""
    return {lab: sums.along(maps[lab].matrix, maps[lab].offset) for lab, sums in of_labs.items()}


def _power(matrix: np.ndarray, exponent: float) -> np.ndarray:
    sizes, vectors = scipy.linalg.eigh((matrix + matrix.T) / 2)
    floor = 1e-9 * max(float(sizes[-1]), 1e-300)
    kept = np.maximum(sizes, floor if exponent < 0 else 0.0)
    powered: np.ndarray = (vectors * kept**exponent) @ vectors.T
    return powered
