"""Principal components of features that stay apart, from sums of small products.

Subspace iteration (Halko, Martinsson & Tropp 2011, SIAM Review 53, 217): from a random basis Q,
each lab returns X'(XQ) of its features X; the orthonormal basis of the sum is the next Q. Two
passes find the directions in which the features of all labs together vary most. No matrix of
all pairs of features is ever formed: for 2560 features and 256 components it would be ten times as
large as what is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt

import numpy as np
import scipy.linalg

from common.federation import MOST_COMPONENTS
from common.seeds import seed_for
from common.threads import one_thread

PASSES = 2

KEPT_BYTES = 256 * 2**20
"""Of sums along components, of all labs together."""

NEGLIGIBLE = 1e-10
"""Directions of less than this share of the largest singular value are rounding noise."""


def num_components(
    num_features: int, num_specimens: int, num_labs: int = 1, num_targets: int = 1
) -> int:
    """Return how many components are looked for: at most one for every two specimens.

    With as many as there are specimens, cross-validation has nothing left to choose by. Of many
    labs, sums along fewer are kept, so that those of all fit into `KEPT_BYTES`.

    Examples
    --------
    >>> num_components(2560, 57), num_components(2560, 3000)
    (28, 256)
    >>> num_components(2560, 64_000, num_labs=100), num_components(2560, 64_000, num_labs=1000)
    (256, 128)
    """
    most = isqrt(KEPT_BYTES // (8 * num_labs * (1 + num_targets))) - 1
    return max(1, min(MOST_COMPONENTS, num_features, num_specimens // 2, most))


def first_basis(num_features: int, components: int, seed: int) -> np.ndarray:
    """Draw the basis that the passes start from.

    Returns
    -------
    ndarray of shape (n_features, n_components), float64, orthonormal columns
    """
    generator = np.random.default_rng(seed_for(seed, "components"))
    return orthonormal(generator.standard_normal((num_features, components)))


def principal_basis(
    multiply: Callable[[np.ndarray], np.ndarray | None],
    num_features: int,
    components: int,
    seed: int,
) -> np.ndarray | None:
    """Find the directions in which the features of all labs together vary most.

    Parameters
    ----------
    multiply : callable
        Given a basis Q, returns the sum of X'(XQ) over all labs, or None where no lab tells.
    num_features, components, seed : int

    Returns
    -------
    ndarray of shape (n_features, n_kept), float64, orthonormal columns, strongest first, or None
    """
    basis = first_basis(num_features, components, seed)
    for _ in range(PASSES):
        summed = multiply(basis)
        if summed is None:
            return None
        # sums of floats depend on how many threads they are dealt out to
        with one_thread():
            basis = orthonormal(summed)
    return basis


def product_with(features: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return X'(XQ) of one lab's features X and the basis Q; those of labs add up.

    Parameters
    ----------
    features : ndarray of shape (n_specimens, n_features), standardised
    basis : ndarray of shape (n_features, n_components)

    Returns
    -------
    ndarray of shape (n_features, n_components), float64

    Examples
    --------
    >>> product_with(np.array([[3.0, 4.0]]), np.array([[1.0], [0.0]]))
    array([[ 9.],
           [12.]])
    """
    values = np.asarray(features, dtype=np.float64)
    product: np.ndarray = values.T @ (values @ basis)
    return product


def orthonormal(summed: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of the columns' span, strongest direction first.

    Parameters
    ----------
    summed : ndarray of shape (n_features, n_components)

    Returns
    -------
    ndarray of shape (n_features, n_kept), float64
        Directions that are rounding noise are left out; at least one is kept.

    Examples
    --------
    >>> orthonormal(np.array([[2.0, 2.0], [0.0, 0.0]])).shape
    (2, 1)
    """
    vectors, sizes, _ = scipy.linalg.svd(summed, full_matrices=False)
    kept = max(1, int((sizes > NEGLIGIBLE * sizes[0]).sum()))
    # a singular vector's sign is the library's choice: its largest entry is made positive
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
    basis: np.ndarray = (vectors * np.where(largest < 0, -1.0, 1.0))[:, :kept]
    return np.ascontiguousarray(basis)
