"""Gram sums: all that ridge regression needs of a lab's specimens; merging them is addition."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True, kw_only=True)
class GramSums:
    """Sums of products of specimens' coordinates, with a one behind them for the intercept.

    Attributes
    ----------
    everyone : ndarray of shape (n_components + 1, n_components + 1), float64
        Over all specimens: what spread and novelty follow from.
    gram : ndarray of shape (n_targets, n_components + 1, n_components + 1), float64
        Over the specimens with that target measured; the last entry counts them.
    cross : ndarray of shape (n_targets, n_components + 1), float64
        Products with the target, standardised; the last entry is the target's sum.
    squares : ndarray of shape (n_targets,), float64
        Sums of the target's squares.

    Examples
    --------
    >>> sums = GramSums.of(np.array([[1.0], [2.0]]), np.array([[3.0], [np.nan]]))
    >>> sums.gram[0].tolist(), sums.cross[0].tolist(), sums.squares.tolist()
    ([[1.0, 1.0], [1.0, 1.0]], [3.0, 3.0], [9.0])
    """

    everyone: np.ndarray
    gram: np.ndarray
    cross: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(
        cls, coordinates: np.ndarray, targets: np.ndarray, counted: np.ndarray | None = None
    ) -> GramSums:
        """Sum over specimens; a target that is NaN counts as missing.

        Parameters
        ----------
        coordinates : ndarray of shape (n_specimens, n_components)
        targets : ndarray of shape (n_specimens, n_targets), standardised
        counted : ndarray of shape (n_specimens, n_targets), bool, optional
            Over which specimens each target's sums are taken: all those that have it, and maybe
            others, for which the mean of those that have it stands. Sums count as many as have it.

        Examples
        --------
        >>> z, y = np.array([[1.0], [2.0], [6.0]]), np.array([[3.0], [5.0], [np.nan]])
        >>> sums = GramSums.of(z, y, counted=np.ones((3, 1), dtype=bool))
        >>> bool(np.allclose(sums.gram[0], sums.everyone * 2 / 3)), sums.cross[0, -1].round(9)
        (True, np.float64(8.0))
        """
        rows = np.column_stack([np.asarray(coordinates, np.float64), np.ones(len(coordinates))])
        measured = np.isfinite(targets)
        values = np.where(measured, np.asarray(targets, np.float64), 0.0)
        share = np.ones(targets.shape[1])
        if counted is not None:
            numbers = measured.sum(axis=0)
            means = values.sum(axis=0) / np.maximum(numbers, 1)
            values = np.where(counted & ~measured, means, values)
            share = numbers / np.maximum(counted.sum(axis=0), 1)
        over = measured if counted is None else counted
        return cls(
            everyone=rows.T @ rows,
            gram=share[:, None, None] * np.stack([rows[seen].T @ rows[seen] for seen in over.T]),
            cross=share[:, None] * (values.T @ rows),
            squares=share * (values**2).sum(axis=0),
        )

    @staticmethod
    def shapes(components: int, num_targets: int) -> dict[str, tuple[int, ...]]:
        """Return the name and shape of each array."""
        side = components + 1
        return {
            "everyone": (side, side),
            "gram": (num_targets, side, side),
            "cross": (num_targets, side),
            "squares": (num_targets,),
        }

    @property
    def num_examples(self) -> float:
        """The number of specimens."""
        return float(self.everyone[-1, -1])

    @property
    def counts(self) -> np.ndarray:
        """The number of specimens with each target, of shape (n_targets,)."""
        return self.gram[:, -1, -1]

    def __add__(self, other: GramSums) -> GramSums:
        """Return the sums over both sets of specimens."""
        return GramSums(**{name: getattr(self, name) + getattr(other, name) for name in _NAMES})

    @classmethod
    def total(cls, parts: Iterable[GramSums]) -> GramSums:
        """Return the sums over the specimens of all parts, added in their order."""
        first, *others = parts
        return sum(others, start=first)

    def counted_as(self, num_examples: float, counts: np.ndarray) -> GramSums:
        """Return the sums as if there were so many specimens; means and spreads stay.

        Parameters
        ----------
        num_examples : float
        counts : ndarray of shape (n_targets,)
            Specimens with each target; zero where there are none.
        """
        factor = counts / np.maximum(self.counts, 1.0)
        return GramSums(
            everyone=self.everyone * (num_examples / self.num_examples),
            gram=self.gram * factor[:, None, None],
            cross=self.cross * factor[:, None],
            squares=self.squares * factor,
        )

    def along(self, directions: np.ndarray) -> GramSums:
        """Return the sums of coordinates z mapped to z @ directions.

        Parameters
        ----------
        directions : ndarray of shape (n_components, n_kept)

        Examples
        --------
        >>> z, y = np.array([[1.0, 2.0], [3.0, 5.0]]), np.ones((2, 1))
        >>> turned = GramSums.of(z, y).along(np.array([[1.0], [1.0]]))
        >>> turned.cross.tolist() == GramSums.of(z.sum(axis=1)[:, None], y).cross.tolist()
        True
        """
        side, kept = directions.shape
        mapped = np.zeros((side + 1, kept + 1))
        mapped[:side, :kept] = directions
        mapped[side, kept] = 1.0
        return GramSums(
            everyone=mapped.T @ self.everyone @ mapped,
            gram=mapped.T @ self.gram @ mapped,
            cross=self.cross @ mapped,
            squares=self.squares,
        )

    def mean_and_covariance(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean and the covariance (of the population) of the coordinates.

        Returns
        -------
        mean : ndarray of shape (n_components,)
        covariance : ndarray of shape (n_components, n_components)
        """
        count = max(self.num_examples, 1.0)
        mean = self.everyone[-1, :-1] / count
        covariance: np.ndarray = self.everyone[:-1, :-1] / count - np.outer(mean, mean)
        return mean, covariance


_NAMES = [field.name for field in fields(GramSums)]
