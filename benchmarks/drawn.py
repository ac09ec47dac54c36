"""Drawn images whose descriptors are known, where a composite's section does not tell them."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from scipy.spatial import cKDTree
from scipy.stats import norm

from client.descriptors.texture import CLIPPED_PERCENT, ENTROPY_BINS, NUM_LEVELS

SIDE_PX = 512
Truth = dict[str, float]


def images(rng: np.random.Generator) -> Iterator[tuple[np.ndarray, Truth]]:
    """Draw every kind of image a few times, each with the descriptors that it is drawn for.

    Yields
    ------
    grey : ndarray of shape (512, 512), float32 in [0, 1]
    truth : dict of str to float, in the units of pixels
    """
    for angle in rng.uniform(0, 180, 8):
        yield stripes(angle, 0.0, rng)
    for spread in (5, 10, 20, 30, 40, 60):
        yield stripes(rng.uniform(0, 180), spread, rng)
    for across in np.linspace(0, 1, 6):
        yield gratings(across)
    for sigma in (2.0, 3.0, 4.0, 6.0, 8.0, 12.0):
        yield smooth_field(sigma, rng)
    for distance in (0.0, 2.0, 4.0, 8.0):
        yield two_greys(distance, rng)
    for num_grains in (60, 120, 250, 500, 900):
        yield grains(num_grains, rng)


def stripes(angle: float, spread: float, rng: np.random.Generator) -> tuple[np.ndarray, Truth]:
    """Draw stripes of one direction, or in bands whose directions spread about it; in degrees."""
    num_bands = 32 if spread else 1
    angles = np.radians(angle + spread * norm.ppf((np.arange(num_bands) + 0.5) / num_bands))
    rng.shuffle(angles)
    grey = np.concatenate([_stripes(each, SIDE_PX // num_bands) for each in angles])
    grey = grey + rng.normal(0, 0.02, grey.shape)
    mean = np.exp(2j * angles).mean()
    away = np.angle(np.exp(2j * angles) / mean) / 2
    return _as_grey(grey), {
        "orientation_cos2": mean.real,
        "orientation_sin2": mean.imag,
        "orientation_order": abs(mean),
        "orientation_spread_deg": float(np.degrees(np.sqrt(np.mean(away**2)))),
    }


def gratings(across: float) -> tuple[np.ndarray, Truth]:
    """Cross two gratings: the energies of their gradients subtract and add."""
    wave = np.sin(np.arange(SIDE_PX) / 3)
    grey = 0.5 + 0.2 * wave[None, :] + 0.2 * across * wave[:, None]
    return _as_grey(grey), {"coherency": (1 - across**2) / (1 + across**2)}


def smooth_field(sigma: float, rng: np.random.Generator) -> tuple[np.ndarray, Truth]:
    """Blur noise: its correlation at a distance d is exp(-d² / 4 sigma²)."""
    field = cv2.GaussianBlur(rng.standard_normal((SIDE_PX, SIDE_PX)), (0, 0), sigma)
    near, diagonal = np.exp(-1 / (4 * sigma**2)), np.exp(-2 / (4 * sigma**2))
    # what is beyond the percentiles is clipped to them
    reach = norm.ppf(1 - CLIPPED_PERCENT / 100)
    level = NUM_LEVELS / (2 * reach)
    steps = np.sqrt(2 * (1 - np.array([near, diagonal]))) * level
    differences = np.arange(-NUM_LEVELS, NUM_LEVELS + 1)
    # the difference of two rounded values: a Gaussian's, averaged over a triangle
    fine = np.linspace(-1, 1, 201)
    share = norm.pdf((differences[:, None, None] + fine[:, None]) / steps) / steps
    weights = (share * (1 - np.abs(fine))[:, None]).sum(axis=1) / (1 - np.abs(fine)).sum()
    return _as_grey(0.5 + 0.1 * field / field.std()), {
        "correlation_length_um": 2 * sigma,
        "glcm_correlation": (near + diagonal) / 2,
        "glcm_contrast": float((differences[:, None] ** 2 * weights).sum(axis=0).mean()),
        "glcm_homogeneity": float((weights / (1 + differences[:, None] ** 2)).sum(axis=0).mean()),
    }


def two_greys(distance: float, rng: np.random.Generator) -> tuple[np.ndarray, Truth]:
    """Draw each pixel from one of two Gaussians, `distance` standard deviations apart."""
    sigma = 0.03
    middles = rng.choice([-distance / 2, distance / 2], (SIDE_PX, SIDE_PX))
    grey = 0.5 + sigma * (middles + rng.standard_normal(middles.shape))
    x = np.linspace(-distance / 2 - 6, distance / 2 + 6, 200_001)
    below = (norm.cdf(x - distance / 2) + norm.cdf(x + distance / 2)) / 2
    low, high = np.interp([CLIPPED_PERCENT / 100, 1 - CLIPPED_PERCENT / 100], below, x)
    edges = low + (np.arange(ENTROPY_BINS + 1) - 0.5) * (high - low) / (ENTROPY_BINS - 1)
    share = np.diff(np.interp([-np.inf, *edges[1:-1], np.inf], x, below))
    share = share[share > 0]
    return _as_grey(grey), {"grey_entropy": float(-np.sum(share * np.log2(share)))}


def grains(num_grains: int, rng: np.random.Generator) -> tuple[np.ndarray, Truth]:
    """Draw a Voronoi tessellation with etched boundaries 3 px wide, and grains of unlike grey."""
    points = rng.uniform(0, SIDE_PX, (num_grains, 2))
    shifts = SIDE_PX * np.array([(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)])
    around = (points + shifts[:, None]).reshape(-1, 2)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    found = cKDTree(around).query(np.column_stack([x.ravel(), y.ravel()]), k=2)
    distances, nearest = np.asarray(found[0]), np.asarray(found[1])
    between = np.linalg.norm(around[nearest[:, 0]] - around[nearest[:, 1]], axis=1)
    to_boundary = (distances[:, 1] ** 2 - distances[:, 0] ** 2) / (2 * between)
    labels = (nearest[:, 0] % num_grains).reshape(SIDE_PX, SIDE_PX)
    grey = np.where(
        to_boundary.reshape(labels.shape) < 1.5, 0.25, rng.uniform(0.5, 0.8, num_grains)[labels]
    )
    grey = cv2.GaussianBlur(grey, (0, 0), 0.8) + rng.normal(0, 0.02, grey.shape)
    ends = np.count_nonzero(labels[1:] != labels[:-1])
    ends += np.count_nonzero(labels[:, 1:] != labels[:, :-1])
    return _as_grey(grey), {"grain_intercept_um": float(2 * labels.size / ends)}


def _stripes(angle: float, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :SIDE_PX]
    return np.asarray(0.5 + 0.3 * np.sin((x * np.sin(angle) + y * np.cos(angle)) / 2))


def _as_grey(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(values, 0, 1), dtype=np.float32)
