"""Random transverse sections of unidirectional carbon fibre in epoxy.

A section is a periodic square: what leaves it at one edge enters at the opposite one, so that its
elasticity can be solved without an edge effect. Voids and resin-rich pockets are placed first, as
ellipses that overlap nothing. Fibres are then thrown in at random and pushed apart until none
overlaps another fibre, a void or a pocket, and cracks are led through the matrix around them.

The file is long because it holds two things that nobody uses apart: the section, and its image on
a grid of pixels, which the solver and the microscopes share so that both see the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from common.errors import CrossplyError

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.intp]

FIBRE_RADIUS_UM = 3.5
FIBRE_RADIUS_SPREAD_UM = 0.12
GAP_UM = 0.15
CRACK_WIDTH_UM = 0.8
CRACK_STEP_UM = 0.5
CRACK_CLEARANCE_UM = 4.0
MAX_PUSHES = 3000
MAX_TRIES = 2000


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What one specimen is made of.

    Attributes
    ----------
    fibre_fraction : float
        Share of the section's area.
    voids_um, pockets_um : tuple of float
        Diameters of the circles that have the areas of the voids and of the resin-rich pockets.
    cracks_um : tuple of float
        Lengths of the cracks from end to end.
    """

    fibre_fraction: float
    voids_um: tuple[float, ...] = ()
    pockets_um: tuple[float, ...] = ()
    cracks_um: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Section:
    """A periodic square section; all lengths in µm, the origin in the upper left corner.

    Attributes
    ----------
    side : float
    fibres : ndarray of shape (num_fibres, 3)
        x, y, radius.
    voids : ndarray of shape (num_voids, 5)
        x, y, two half axes, and the angle of the first from x in radians.
    cracks : tuple of ndarray, each of shape (num_points, 2)
        The points of a crack; they may run past the edge, and go on at the opposite one.
    """

    side: float
    fibres: FloatArray
    voids: FloatArray
    cracks: tuple[FloatArray, ...] = ()

    @property
    def fibre_fraction(self) -> float:
        """Share of the area that is fibre."""
        return float(np.pi * np.sum(self.fibres[:, 2] ** 2) / self.side**2)

    @property
    def void_fraction(self) -> float:
        """Share of the area that is void."""
        return float(np.pi * np.sum(self.voids[:, 2] * self.voids[:, 3]) / self.side**2)


class Coverage(NamedTuple):
    """Shares of each pixel, each of shape (num_px, num_px), from 0 to 1; the rest is matrix."""

    fibre: FloatArray
    void: FloatArray
    crack: FloatArray


def random_section(recipe: Recipe, *, side: float, rng: np.random.Generator) -> Section:
    """Draw a section after `recipe`.

    Parameters
    ----------
    recipe : Recipe
    side : float, in µm
    rng : numpy.random.Generator

    Raises
    ------
    CrossplyError
        If the recipe does not fit into the square.

    Examples
    --------
    >>> recipe = Recipe(fibre_fraction=0.5, voids_um=(8.0,))
    >>> section = random_section(recipe, side=60.0, rng=np.random.default_rng(0))
    >>> round(section.fibre_fraction, 2), round(section.void_fraction, 3)
    (0.5, 0.014)
    """
    num_voids = len(recipe.voids_um)
    ellipses = _place_ellipses((*recipe.voids_um, *recipe.pockets_um), side, rng)
    radii = _fibre_radii(recipe.fibre_fraction, side, rng)
    centres = _pack(radii, _discs_of(ellipses), side, rng)
    fibres = np.column_stack([centres, radii])
    voids = ellipses[:num_voids]
    cracks: list[FloatArray] = []
    occupied = voids[:, :3]
    for length in recipe.cracks_um:
        cracks.append(_crack(length, fibres, occupied, side, rng))
        points = np.column_stack([cracks[-1], np.zeros(len(cracks[-1]))])
        occupied = np.concatenate([occupied, points])
    return Section(side=side, fibres=fibres, voids=voids, cracks=tuple(cracks))


def rasterise(section: Section, num_px: int) -> Coverage:
    """Return how much of each pixel is fibre, void and crack.

    The edge that crosses a pixel is taken as straight, so that a share follows from the edge's
    distance, and the area of each fibre is kept.

    Examples
    --------
    >>> fibre = np.array([[3.1, 7.8, 3.5]])
    >>> coverage = rasterise(Section(side=20.0, fibres=fibre, voids=np.empty((0, 5))), 40)
    >>> round(float(coverage.fibre.mean()), 3), round(np.pi * 3.5**2 / 20**2, 3)
    (0.096, 0.096)
    """
    pixel = section.side / num_px
    fibre, void, crack = (np.zeros((num_px, num_px)) for _ in range(3))
    for x, y, radius in section.fibres:
        window, dx, dy = _window(x, y, radius, pixel, num_px)
        # a straight edge covers a disc of radius**2 + pixel**2 / 12: draw the one that is right
        radius = (radius**2 - pixel**2 / 12) ** 0.5
        fibre[window] += np.clip((radius - np.hypot(dx, dy)) / pixel + 0.5, 0, 1)
    for x, y, long, short, angle in section.voids:
        window, dx, dy = _window(x, y, long, pixel, num_px)
        depth = _depth_in_ellipse(dx, dy, long, short, angle)
        void[window] += np.clip(depth / pixel + 0.5, 0, 1)
    for line in section.cracks:
        for start, end in pairwise(line):
            _stamp_segment(crack, start, end, pixel)
    np.clip(fibre, 0, 1, out=fibre)
    np.clip(void, 0, 1 - fibre, out=void)
    # a crack runs around fibres: where it touches one, the fibre keeps its share
    np.clip(crack, 0, 1 - fibre - void, out=crack)
    return Coverage(fibre, void, crack)


def _window(
    x: float, y: float, reach: float, pixel: float, num_px: int
) -> tuple[tuple[IndexArray, IndexArray], FloatArray, FloatArray]:
    # indices of the pixels within `reach`, wrapped around, and their centres' offsets from x, y
    first_x, first_y = int((x - reach) // pixel) - 1, int((y - reach) // pixel) - 1
    count = int(2 * reach / pixel) + 4
    columns, rows = first_x + np.arange(count), first_y + np.arange(count)
    window = (rows % num_px)[:, None], (columns % num_px)[None, :]
    offsets = ((columns + 0.5) * pixel - x, (rows + 0.5) * pixel - y)
    dx, dy = (np.asarray(offset, dtype=np.float64) for offset in offsets)
    return window, dx[None, :], dy[:, None]


def _depth_in_ellipse(
    dx: FloatArray, dy: FloatArray, long: float, short: float, angle: float
) -> FloatArray:
    # distance to the edge to first order, positive inside: (1 - rho) * rho / |grad|
    along = (dx * np.cos(angle) + dy * np.sin(angle)) / long
    across = (dy * np.cos(angle) - dx * np.sin(angle)) / short
    rho = np.maximum(np.hypot(along, across), 1e-6)
    slope = np.hypot(along / long, across / short) / rho
    depth: FloatArray = (1 - rho) / np.maximum(slope, 1e-6)
    return depth


def _stamp_segment(crack: FloatArray, start: FloatArray, end: FloatArray, pixel: float) -> None:
    middle, span = (start + end) / 2, end - start
    length = float(np.hypot(*span))
    reach = length / 2 + CRACK_WIDTH_UM
    window, dx, dy = _window(middle[0], middle[1], reach, pixel, crack.shape[0])
    along = np.clip((dx * span[0] + dy * span[1]) / length, -length / 2, length / 2) / length
    distance = np.hypot(dx - along * span[0], dy - along * span[1])
    half, edge = CRACK_WIDTH_UM / 2, pixel / 2
    share = np.minimum(distance + half, edge) - np.maximum(distance - half, -edge)
    crack[window] = np.maximum(crack[window], np.clip(share / pixel, 0, 1))


def _place_ellipses(
    diameters: tuple[float, ...], side: float, rng: np.random.Generator
) -> FloatArray:
    ellipses: list[FloatArray] = []
    for diameter in diameters:
        aspect = rng.uniform(1.0, 2.2)
        half_axes = diameter / 2 * np.array([aspect**0.5, aspect**-0.5])
        for _ in range(MAX_TRIES):
            x, y, angle = rng.uniform(0, [side, side, np.pi])
            # a fibre fits between two neighbours, so that they stay two defects
            if all(
                np.hypot(*_nearest(other[:2] - (x, y), side))
                > other[2] + half_axes[0] + 2 * FIBRE_RADIUS_UM
                for other in ellipses
            ):
                ellipses.append(np.array([x, y, *half_axes, angle]))
                break
        else:
            raise CrossplyError(f"no room for an ellipse of {diameter:.1f} µm in {side:g} µm")
    return np.array(ellipses).reshape(-1, 5)


def _fibre_radii(fraction: float, side: float, rng: np.random.Generator) -> FloatArray:
    count = max(1, round(fraction * side**2 / (np.pi * FIBRE_RADIUS_UM**2)))
    radii = rng.normal(FIBRE_RADIUS_UM, FIBRE_RADIUS_SPREAD_UM, count)
    # few fibres would otherwise miss the fraction that was asked for by one fibre's share
    return np.asarray(radii * (fraction * side**2 / (np.pi * np.sum(radii**2))) ** 0.5)


def _discs_of(ellipses: FloatArray) -> FloatArray:
    # an ellipse is the union of the discs around the points of its medial axis
    x, y, long, short, angle = ellipses.T[:, :, None]
    reach = long**2 - short**2
    offset = np.linspace(-1, 1, 13)[None, :] * reach / long
    radius = short * np.sqrt(np.maximum(1 - offset**2 / np.maximum(reach, 1e-12), 0))
    discs = [x + offset * np.cos(angle), y + offset * np.sin(angle), radius]
    return np.stack(discs, axis=-1).reshape(-1, 3)


def _pack(
    radii: FloatArray, obstacles: FloatArray, side: float, rng: np.random.Generator
) -> FloatArray:
    centres = rng.uniform(0, side, (len(radii), 2))
    sizes = radii + GAP_UM / 2
    for _ in range(MAX_PUSHES):
        pushes, overlap = _between_fibres(centres, sizes, side)
        away, overlap_with_obstacle = _out_of_obstacles(centres, radii + GAP_UM, obstacles, side)
        # half of the gap is slack: nothing touches at the end, and the end is reached sooner
        if max(overlap, overlap_with_obstacle) < GAP_UM / 2:
            return centres
        centres = (centres + pushes + away) % side
        centres[centres >= side] = 0  # a tiny negative number modulo `side` rounds to `side`
    raise CrossplyError(f"{len(radii)} fibres do not fit into {side:g} µm beside the voids")


def _between_fibres(
    centres: FloatArray, sizes: FloatArray, side: float
) -> tuple[FloatArray, float]:
    pairs = cKDTree(centres, boxsize=np.full(2, side)).query_pairs(
        2 * sizes.max(), output_type="ndarray"
    )
    one, other = pairs[:, 0], pairs[:, 1]
    span = _nearest(centres[other] - centres[one], side)
    distance = np.maximum(np.hypot(span[:, 0], span[:, 1]), 1e-9)
    overlap = np.maximum(sizes[one] + sizes[other] - distance, 0)
    push = (overlap / distance / 2)[:, None] * span
    sums = [
        np.bincount(other, push[:, axis], len(sizes)) - np.bincount(one, push[:, axis], len(sizes))
        for axis in range(2)
    ]
    return np.column_stack(sums), float(overlap.max(initial=0))


def _out_of_obstacles(
    centres: FloatArray, sizes: FloatArray, obstacles: FloatArray, side: float
) -> tuple[FloatArray, float]:
    if not len(obstacles):
        return np.zeros_like(centres), 0.0
    span = _nearest(centres[:, None] - obstacles[None, :, :2], side)
    distance = np.maximum(np.hypot(span[..., 0], span[..., 1]), 1e-9)
    overlap = sizes[:, None] + obstacles[None, :, 2] - distance
    # one push at a time: the discs of one ellipse would each push by the whole overlap
    deepest = np.arange(len(centres)), np.argmax(overlap, axis=1)
    depth = np.maximum(overlap[deepest], 0)
    return (depth / distance[deepest])[:, None] * span[deepest], float(depth.max())


def _crack(
    length: float,
    fibres: FloatArray,
    obstacles: FloatArray,
    side: float,
    rng: np.random.Generator,
) -> FloatArray:
    count = max(3, round(length / CRACK_STEP_UM))
    for _ in range(MAX_TRIES):
        # transverse cracks stand across the load, which acts along x
        heading = np.pi / 2 + rng.normal(0, 0.25) + np.cumsum(rng.normal(0, 0.06, count))
        steps = length / count * np.column_stack([np.cos(heading), np.sin(heading)])
        line = rng.uniform(0, side, 2) + np.cumsum(steps, axis=0)
        span = _nearest(line[:, None] - obstacles[None, :, :2], side)
        if np.all(np.hypot(span[..., 0], span[..., 1]) > obstacles[:, 2] + CRACK_CLEARANCE_UM):
            return _around_fibres(line, fibres, side)
    raise CrossplyError(f"no room for a crack of {length:.1f} µm in {side:g} µm")


def _around_fibres(line: FloatArray, fibres: FloatArray, side: float) -> FloatArray:
    # a point inside a fibre moves straight out to its interface: a chord becomes an arc
    distance, index = cKDTree(fibres[:, :2], boxsize=np.full(2, side)).query(line % side)
    span = _nearest(line - fibres[index, :2], side)
    wanted = fibres[index, 2] + CRACK_WIDTH_UM / 4
    outward = np.where(distance < wanted, wanted - distance, 0) / np.maximum(distance, 1e-9)
    return np.asarray(line + outward[:, None] * span)


def _nearest(span: FloatArray, side: float) -> FloatArray:
    return np.asarray(span - side * np.round(span / side))
