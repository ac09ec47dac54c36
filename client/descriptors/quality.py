"""Quality of the picture, not of the material: its noise, and how sharp it is."""

from __future__ import annotations

import cv2
import numpy as np

from client.descriptors.levels import thinned

# difference of two Laplacians: blind to slopes and curvature
_IMMERKAER = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
_LAPLACIAN_GAIN = 20.0

# variance without contrast, and share of it that is not noise
_NOTHING = 1e-8
_ONLY_NOISE = 0.05


def noise(grey: np.ndarray) -> float:
    """Return the standard deviation of the noise, as a share of full scale.

    Immerkær's mask, with the median in place of the mean, which edges would raise.

    Parameters
    ----------
    grey : ndarray of shape (height, width), float32 in [0, 1]

    References
    ----------
    Immerkær (1996), Fast noise variance estimation, Comput. Vis. Image Underst. 64; the median
    after Donoho, Johnstone (1994), Biometrika 81.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> round(noise(rng.normal(0.5, 0.02, (128, 128)).astype(np.float32)), 3)
    0.02
    """
    response = np.abs(thinned(cv2.filter2D(grey, cv2.CV_32F, _IMMERKAER)[1:-1, 1:-1]))
    return float(1.4826 * np.median(response) / np.linalg.norm(_IMMERKAER))


def focus(grey: np.ndarray, noise_sigma: float) -> float | None:
    """Return the variance of the Laplacian in units of the grey values' variance.

    Dividing makes it blind to contrast; the noise's share is taken off both.

    Parameters
    ----------
    grey : ndarray of shape (height, width), float32 in [0, 1]
    noise_sigma : float

    Returns
    -------
    float, or None without contrast; larger is sharper

    References
    ----------
    Pech-Pacheco et al. (2000), Diatom autofocusing in brightfield microscopy, ICPR; as LAPV in
    Pertuz, Puig, Garcia (2013), Pattern Recognit. 46.
    """
    laplacian = cv2.Laplacian(grey, cv2.CV_32F)[1:-1, 1:-1]
    variance = float(grey.var(dtype=np.float64))
    signal = variance - noise_sigma**2
    if signal < max(_NOTHING, _ONLY_NOISE * variance):
        return None
    curvature = float(laplacian.var(dtype=np.float64)) - _LAPLACIAN_GAIN * noise_sigma**2
    return max(curvature, 0.0) / signal
