"""How far the labs' features lie apart, from summed moments.

Fréchet distance of two normal distributions (Dowson & Landau 1982), known from image generation
(Heusel et al. 2017, arXiv 1706.08500).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.linalg

from common.gram import GramSums


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
    roots = [_root(covariance) for _, covariance in moments]
    found = np.zeros((len(moments), len(moments)))
    for one, (mean, covariance) in enumerate(moments):
        for other in range(one):
            crossed = _root(roots[one] @ moments[other][1] @ roots[one])
            spread = np.trace(covariance) + np.trace(moments[other][1]) - 2 * np.trace(crossed)
            apart = ((mean - moments[other][0]) ** 2).sum() + max(float(spread), 0.0)
            found[one, other] = found[other, one] = np.sqrt(apart / max(scale, 1e-300))
    return found


def _root(matrix: np.ndarray) -> np.ndarray:
    sizes, vectors = scipy.linalg.eigh((matrix + matrix.T) / 2)
    root: np.ndarray = (vectors * np.sqrt(np.maximum(sizes, 0.0))) @ vectors.T
    return root
