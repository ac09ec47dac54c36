"""Ridge regression across labs in one round, from sums alone: the line that a head must beat.

Equal to the fit of pooled data (tests hold it to 1e-9): a sum over labs is the sum over all their
specimens. The intercept is not penalised. What the sums reveal of a lab:
docs/decisions/gram-sums.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg

from common.gram import GramSums

if TYPE_CHECKING:
    # torch comes with it
    from common.head import HeadArrays

PENALTIES = np.logspace(-1, 6, 29)

NOISE = 1e-12
"""Weights of less than this share of the largest are zero but for rounding, and intercepts of less
than this share of a target's deviation."""


@dataclass(frozen=True, kw_only=True)
class RidgeFit:
    """A linear predictor of standardised targets.

    Attributes
    ----------
    weights : ndarray of shape (n_targets, n_components)
    intercept : ndarray of shape (n_targets,)
    penalty : ndarray of shape (n_targets,)
        Chosen for each target by generalised cross-validation (Golub, Heath & Wahba 1979,
        Technometrics 21, 215), which needs nothing but the sums.
    mean_square : ndarray of shape (n_targets,)
        Mean squared error over the specimens that it was fitted to; NaN without any.
    """

    weights: np.ndarray
    intercept: np.ndarray
    penalty: np.ndarray
    mean_square: np.ndarray

    def predict(self, coordinates: np.ndarray) -> np.ndarray:
        """Return predictions, standardised, of coordinates of shape (n_specimens, n_components)."""
        outputs: np.ndarray = coordinates @ self.weights.T + self.intercept
        return outputs

    def head(self, basis: np.ndarray) -> HeadArrays:
        """Return it as a head without hidden layers, over features instead of components.

        Parameters
        ----------
        basis : ndarray of shape (n_features, n_components)
        """
        exact = self.weights @ basis.T
        # what is zero but for rounding differs from machine to machine, and from thread to thread
        exact[np.abs(exact) < NOISE * np.abs(exact).max(initial=0.0)] = 0.0
        intercept = np.where(np.abs(self.intercept) < NOISE, 0.0, self.intercept)
        return {"0.weight": exact.astype(np.float32), "0.bias": intercept.astype(np.float32)}

    def mean_square_over(self, sums: GramSums) -> np.ndarray:
        """Return the mean squared error over the specimens of some sums, NaN where there are none.

        Returns
        -------
        ndarray of shape (n_targets,), standardised
        """
        augmented = np.column_stack([self.weights, self.intercept])
        squared = (
            sums.squares
            - 2 * np.einsum("tk,tk->t", augmented, sums.cross)
            + np.einsum("tk,tkl,tl->t", augmented, sums.gram, augmented)
        )
        return np.where(
            sums.counts > 0, np.maximum(squared, 0.0) / np.maximum(sums.counts, 1.0), np.nan
        )


def fit_ridge(sums: GramSums) -> RidgeFit:
    """Fit every target; one that nobody measured is predicted by its mean, zero.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 50)[:, None]
    >>> fit = fit_ridge(GramSums.of(x, 3 * x + 1))
    >>> fit.weights.round(1).tolist(), fit.intercept.round(3).tolist()
    ([[3.0]], [1.0])
    """
    fitted = [
        _fit_target(gram, cross, float(squares))
        for gram, cross, squares in zip(sums.gram, sums.cross, sums.squares, strict=True)
    ]
    weights, intercept, penalty = (np.array(part) for part in zip(*fitted, strict=True))
    without_error = RidgeFit(
        weights=weights,
        intercept=intercept,
        penalty=penalty,
        mean_square=np.full(len(fitted), np.nan),
    )
    return RidgeFit(
        weights=weights,
        intercept=intercept,
        penalty=penalty,
        mean_square=without_error.mean_square_over(sums),
    )


def _fit_target(
    gram: np.ndarray, cross: np.ndarray, squares: float
) -> tuple[np.ndarray, float, float]:
    count = gram[-1, -1]
    if count < 2:
        return np.zeros(len(cross) - 1), 0.0, float(PENALTIES[-1])
    mean, centre = gram[-1, :-1] / count, cross[-1] / count
    scatter = gram[:-1, :-1] - count * np.outer(mean, mean)
    products = cross[:-1] - count * mean * centre
    sizes, vectors = scipy.linalg.eigh(scatter)
    sizes = np.maximum(sizes, 0.0)
    rotated = vectors.T @ products
    total = max(squares - count * centre**2, 0.0)
    penalty = min(PENALTIES, key=lambda penalty: _score(penalty, sizes, rotated, total, count))
    weights = vectors @ (rotated / (sizes + penalty))
    return weights, float(centre - mean @ weights), float(penalty)


def _score(
    penalty: float, sizes: np.ndarray, rotated: np.ndarray, total: float, count: float
) -> float:
    """Return the generalised cross-validation score of a penalty."""
    weights = rotated / (sizes + penalty)
    residual = max(float(total - 2 * weights @ rotated + sizes @ weights**2), 0.0)
    freedom = count - 1.0 - float((sizes / (sizes + penalty)).sum())
    # as many parameters as specimens: nothing is left to judge by
    return count * residual / freedom**2 if freedom > 1e-6 * count else np.inf
