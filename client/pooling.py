"""From what was measured on a specimen's tiles and micrographs to one vector of the specimen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.descriptors import DESCRIPTORS
from common.federation import Imaging


def pool_tiles(vectors: np.ndarray, imaging: Imaging) -> np.ndarray:
    """Pool a specimen's tiles: the mean, then (unless a micrograph is one tile) the deviation.

    Parameters
    ----------
    vectors : ndarray of shape (n_tiles, channels), float32
    imaging : Imaging

    Returns
    -------
    ndarray of shape (channels,) with ``scale = "fit"``, else (2 * channels,); float64

    Examples
    --------
    >>> imaging = Imaging(scale="pixels")
    >>> pool_tiles(np.array([[1.0, 0.0], [3.0, 0.0]]), imaging)
    array([2., 0., 1., 0.])
    """
    wide = vectors.astype(np.float64)
    mean: np.ndarray = wide.mean(axis=0)
    return mean if imaging.scale == "fit" else np.concatenate([mean, wide.std(axis=0)])


def pool_descriptors(values: np.ndarray, names: Sequence[str], *, has_scale: bool) -> np.ndarray:
    """Pool a specimen's micrographs: for each descriptor, the mean of those that have a value.

    Where no micrograph has one, what stands for the thing's absence stands. It is filled in last:
    a mean of a void's diameter and of the 0 for "no void here" would be the size of no void.

    Parameters
    ----------
    values : ndarray of shape (n_micrographs, n_descriptors), float64
        NaN where a micrograph does not show the thing.
    names : sequence of str
        Of the descriptors.
    has_scale : bool
        Whether the size of a pixel is known, which decides the unit of absence.

    Returns
    -------
    ndarray of shape (n_descriptors,), float64
        Always finite, if the values are finite or NaN.

    Examples
    --------
    >>> values = np.array([[0.5, 30.0, np.nan], [0.0, np.nan, np.nan]])
    >>> names = ["void_area_fraction", "void_largest_diameter_um", "fibre_diameter_um"]
    >>> pool_descriptors(values, names, has_scale=True)
    array([ 0.25, 30.  ,  7.  ])
    """
    is_found = ~np.isnan(values)
    counts = is_found.sum(axis=0)
    sums = np.where(is_found, values, 0.0).sum(axis=0)
    absences = [DESCRIPTORS[name].absence(has_scale=has_scale) for name in names]
    return np.where(counts > 0, sums / np.maximum(counts, 1), absences)
