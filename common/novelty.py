"""Is a specimen like those that were learned from? Its distance from them, against a threshold.

Along the leading principal components, Mahalanobis' distance (1936); for what lies beside them, the
squared length that is left over in units of its own spread (Jackson & Mudholkar 1979), which is
how foreign images differ: along directions in which none of the labs' specimens do. Both follow
from the labs' summed moments alone; the threshold is a quantile of all labs' held-out specimens,
from counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from common.gram import GramSums
from common.intervals import quantiles

INSIDE = 0.95
"""Share of held-out specimens that are to be called inside the domain."""

MOST_DIRECTIONS = 32
SPECIMENS_A_DIRECTION = 8
"""A spread that fewer specimens tell of is not known well enough to divide by."""


@dataclass(frozen=True, kw_only=True)
class Novelty:
    """Distance of a specimen's features from those of all labs.

    Attributes
    ----------
    directions : ndarray of shape (n_features, n_directions)
        Divided by the spread along each, so that distances are in deviations.
    mean : ndarray of shape (n_directions,)
    threshold : float
    residual : float
        What one unit of squared length beside the directions counts as.
    """

    directions: np.ndarray
    mean: np.ndarray
    threshold: float
    residual: float = 0.0

    @cached_property
    def inverse(self) -> np.ndarray:
        """The pseudoinverse of the directions, of shape (n_directions, n_features)."""
        found: np.ndarray = np.linalg.pinv(self.directions)
        return found

    @classmethod
    def of(cls, sums: GramSums, basis: np.ndarray, variance: float | None = None) -> Novelty:
        """Take the leading directions; the threshold is that of a normal distribution.

        What is beside them is taken for chi squared with as many degrees of freedom as its first
        two moments say (Box 1954), and so adds to the squares along them.

        Parameters
        ----------
        sums : GramSums
            Of all labs.
        basis : ndarray of shape (n_features, n_components)
        variance : float, optional
            Of all features together; of those along the basis, if it is not given.
        """
        # a fifth of a second to import, and predicting needs none of it
        import scipy.linalg
        from scipy.special import gammaincinv

        mean, covariance = sums.mean_and_covariance()
        sizes, vectors = scipy.linalg.eigh(covariance)
        most = max(1, min(MOST_DIRECTIONS, int(sums.num_examples) // SPECIMENS_A_DIRECTION))
        # features that do not vary at all leave one direction, along which nothing is far
        sizes = np.maximum(sizes, np.finfo(float).tiny)
        order = np.argsort(-sizes)
        leading = [i for i in order[:most] if sizes[i] > 1e-9 * sizes.max()]
        scaled = vectors[:, leading] / np.sqrt(sizes[leading])
        others = sizes[order[len(leading) :]]
        num_features, num_components = basis.shape
        # what lies beside the basis is as large as it is, and spread evenly for all that is known
        outside = max((variance or 0.0) - float(sizes.sum()), 0.0)
        total = float(others.sum()) + outside
        squares = float((others**2).sum()) + outside**2 / max(num_features - num_components, 1)
        matters = total > 1e-9 * float(sizes.max())
        freedom = len(leading) + (total**2 / squares if matters else 0.0)
        return cls(
            directions=basis @ scaled,
            mean=mean @ scaled,
            # the root of a quantile of chi squared
            threshold=float(np.sqrt(2 * gammaincinv(freedom / 2, INSIDE))),
            residual=total / squares if matters else 0.0,
        )

    def calibrated(self, counts: np.ndarray) -> Novelty:
        """Return it with the threshold that held-out specimens' counted scores give.

        Parameters
        ----------
        counts : ndarray of shape (n_bins,)
            Too few for the quantile leave the threshold as it is.
        """
        found = float(quantiles(counts[None], (INSIDE,))[0, 0])
        threshold = found if np.isfinite(found) else self.threshold
        return replace(self, threshold=threshold)

    @staticmethod
    def shapes(num_features: int, directions: int) -> dict[str, tuple[int, ...]]:
        """Return the name and shape of each of its arrays."""
        return {
            "directions": (num_features, directions),
            "mean": (directions,),
            "threshold": (1,),
            "residual": (1,),
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """Return it as named arrays, float64."""
        return {
            "directions": self.directions,
            "mean": self.mean,
            "threshold": np.array([self.threshold]),
            "residual": np.array([self.residual]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Novelty:
        """Read it from named arrays, the inverse of `arrays`."""
        return cls(
            directions=arrays["directions"],
            mean=arrays["mean"],
            threshold=float(arrays["threshold"][0]),
            residual=float(arrays["residual"][0]),
        )

    def score(self, features: np.ndarray) -> np.ndarray:
        """Return each specimen's distance, in deviations.

        Parameters
        ----------
        features : ndarray of shape (n_specimens, n_features), standardised

        Returns
        -------
        ndarray of shape (n_specimens,)

        Examples
        --------
        >>> around = np.array([[-2.0], [2.0]] * 8)
        >>> sums = GramSums.of(around, np.zeros((16, 1)))
        >>> Novelty.of(sums, np.eye(1)).score(np.array([[0.0], [6.0]])).tolist()
        [0.0, 3.0]
        """
        z = np.asarray(features, np.float64)
        along = z @ self.directions
        squared = ((along - self.mean) ** 2).sum(axis=1)
        if self.residual:
            lengths = np.linalg.norm(self.directions, axis=0)
            beside = (z**2).sum(axis=1) - ((along / lengths) ** 2).sum(axis=1)
            squared += self.residual * np.maximum(beside, 0.0)
        distance: np.ndarray = np.sqrt(squared)
        return distance

    def inside(self, features: np.ndarray) -> np.ndarray:
        """Return which specimens are inside the domain, of shape (n_specimens,)."""
        within: np.ndarray = self.score(features) <= self.threshold
        return within
