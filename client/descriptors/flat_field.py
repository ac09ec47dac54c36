"""Flat field: even light, before any threshold.

Light that falls off across a micrograph, or charge that builds up, multiplies the grey values by
a smooth field. A ramp of 40 % would move a fibre fraction from one threshold by 7 points. The
field is fitted to what should be equally bright, within each phase, so that a void or a crowd of
fibres on one side is not taken for a shadow.
"""

from __future__ import annotations

import cv2
import numpy as np

from client.descriptors.levels import find_levels

NUM_SAMPLES = 64
"""Samples along the shorter side that the field is fitted to."""

_ROUNDS = 4
_WITHIN = 2.0
_DARKEST = 0.02


def flatten(grey: np.ndarray) -> np.ndarray:
    """Divide a micrograph by the illumination that is fitted to it.

    The field is the exponential of a quadratic in x and y, fitted by least squares to the
    logarithm of a sparse grid of grey values, with one constant for each phase. Phases and field
    are found in turn. What is neither resin nor fibre (voids, seams, edges) takes no part.

    Parameters
    ----------
    grey : ndarray of shape (height, width), float32 in [0, 1]

    Returns
    -------
    ndarray of shape (height, width), float32
        The field that was divided out has the geometric mean 1, so that values may pass 1.

    References
    ----------
    A quadratic shading model as in Likar, Maintz, Viergever, Pernuš (2000), Retrospective shading
    correction based on entropy minimization, J. Microsc. 197; fitted here within the phases.

    Examples
    --------
    >>> light = np.linspace(0.8, 1.2, 64, dtype=np.float32)
    >>> disc = np.hypot(*np.mgrid[-32:32, -32:32]) < 16
    >>> grey = np.where(disc, 0.7, 0.4).astype(np.float32) * light
    >>> flat = flatten(grey)
    >>> round(float(np.std(grey[disc])), 2), round(float(np.std(flat[disc])), 2)
    (0.04, 0.0)
    """
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)
    step = max(1, min(grey.shape) // NUM_SAMPLES)
    rows, columns = (np.arange(step // 2, size, step) for size in grey.shape)
    samples = smooth[np.ix_(rows, columns)]
    y, x = (_centred(at, size) for at, size in zip((rows, columns), grey.shape, strict=True))
    weights = _fit(samples, _terms(y, x))
    y, x = (_centred(np.arange(size), size) for size in grey.shape)
    field = _field(weights, y, x)
    field -= field.mean(dtype=np.float64).astype(np.float32)
    return np.asarray(grey / np.exp(field), dtype=np.float32)


def _centred(at: np.ndarray, size: int) -> np.ndarray:
    return np.asarray((2 * at + 1) / size - 1)


def _terms(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    columns = np.broadcast_arrays(y[:, None], x, y[:, None] ** 2, y[:, None] * x, x**2)
    return np.stack(columns, axis=-1).reshape(-1, 5)


def _field(weights: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    down = (weights[0] * y + weights[2] * y**2).astype(np.float32)
    across = (weights[1] * x + weights[4] * x**2).astype(np.float32)
    mixed = np.multiply.outer((weights[3] * y).astype(np.float32), x.astype(np.float32))
    return np.asarray(mixed + down[:, None] + across)


def _fit(samples: np.ndarray, terms: np.ndarray) -> np.ndarray:
    logs = np.log(np.maximum(samples.ravel(), _DARKEST)).astype(np.float64)
    weights = np.zeros(terms.shape[1])
    for _ in range(_ROUNDS):
        rest = logs - terms @ weights
        light = np.exp(rest)
        levels = find_levels(light)
        bright = light > levels.fibre
        ordinary = _near_median(rest, bright)
        ordinary |= _near_median(rest, ~bright & (light > levels.void))
        table = np.column_stack([bright, ~bright, terms])[ordinary].astype(np.float64)
        # normal equations: seven unknowns, and a phase may be missing, hence least squares
        solution = np.linalg.lstsq(table.T @ table, table.T @ logs[ordinary], rcond=1e-10)[0]
        weights = solution[2:]
    return weights


def _near_median(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    if not chosen.any():
        return chosen
    distance = np.abs(values - np.median(values[chosen]))
    spread = 1.4826 * float(np.median(distance[chosen]))
    # a noiseless phase has no spread, and is all ordinary
    return np.asarray(chosen & (distance <= _WITHIN * spread + 1e-6))
