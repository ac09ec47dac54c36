"""How right and how fast the classical descriptors are, on drawn images whose truth is known.

python -m benchmarks.descriptors [--sections N] [--seed N] [--markdown]

Sections of composites are photographed by the demo's six microscopes (simulation/), with voids,
pockets and cracks drawn more often than any lab has them. What a section does not tell is drawn
on its own (benchmarks/drawn.py), and noise and focus are put into a section's picture. Errors are
medians of the absolute difference to the truth. Times are for one descriptor alone, everything
that it needs included, and for all at once, with one thread.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
from rich.box import MARKDOWN, SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from scipy.spatial import cKDTree
from scipy.stats import spearmanr

from benchmarks import drawn
from client.descriptors import describe
from client.descriptors.fibres import fraction_variation
from client.descriptors.resin import mean_chord, pocket_mask
from client.descriptors.voids import regions
from client.pooling import pool_descriptors
from common.descriptors import DESCRIPTORS
from simulation.composites import Recipe, Section, random_section, rasterise
from simulation.laboratories import LABS, SIDE_UM
from simulation.microscopes import Microscope, micrograph

Pairs = dict[str, list[tuple[float, float]]]
"""Truth and measurement of each descriptor."""

FINE_PX = 1120
TIMED_SIDE_UM, TIMED_PX = 224.0, 1120


def main() -> None:
    """Draw, measure, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--sections", type=int, default=18)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    pairs: Pairs = defaultdict(list)
    for number in range(arguments.sections):
        _compare_section(np.random.default_rng([arguments.seed, number]), pairs)
    rng = np.random.default_rng(arguments.seed)
    for grey, truth in drawn.images(rng):
        _add(pairs, truth, grey, None)
    _compare_quality(rng, pairs)
    table = _table(pairs, _milliseconds(rng), markdown=arguments.markdown)
    console = Console(width=140 if arguments.markdown else None)
    console.print(table)
    console.print(_alarms(pairs))


def draw_recipe(rng: np.random.Generator) -> Recipe:
    """Draw what a section is made of: every third has no crack, and some have no void."""

    def sizes(low: float, high: float, most: int) -> tuple[float, ...]:
        return tuple(np.sort(rng.uniform(low, high, rng.integers(0, most + 1)))[::-1].tolist())

    return Recipe(
        fibre_fraction=float(rng.uniform(0.38, 0.58)),
        voids_um=sizes(5, 20, 4),
        pockets_um=sizes(12, 24, 2),
        cracks_um=sizes(8, 30, 3),
    )


def section_truth(section: Section) -> dict[str, float]:
    """Return what a section's geometry says, in the units of a known scale."""
    area = section.side**2
    centres, radii = section.fibres[:, :2] % section.side, section.fibres[:, 2]
    tree = cKDTree(centres, boxsize=np.full(2, section.side))
    nearest = np.asarray(tree.query(centres, k=2)[0])[:, 1]
    voids = 2 * np.sqrt(section.voids[:, 2] * section.voids[:, 3])
    crack_um = [float(np.hypot(*np.diff(line, axis=0).T).sum()) for line in section.cracks]
    return {
        "fibre_area_fraction": section.fibre_fraction,
        "fibre_count_per_mm2": 1e6 * len(radii) / area,
        "fibre_diameter_um": float(2 * np.median(radii)),
        "fibre_spacing_ratio": float(nearest.mean() / (2 * np.median(radii))),
        "fibre_spacing_variation": float(nearest.std() / nearest.mean()),
        "void_area_fraction": section.void_fraction,
        "void_count_per_mm2": 1e6 * len(voids) / area,
        "void_median_diameter_um": float(np.median(voids)) if len(voids) else 0.0,
        "void_largest_diameter_um": float(voids.max(initial=0.0)),
        "crack_length_density": 1e3 * sum(crack_um) / area,
        "crack_count_per_mm2": 1e6 * len(crack_um) / area,
        **_map_truth(section),
    }


def _map_truth(section: Section) -> dict[str, float]:
    # of the drawn phases, without a microscope in between
    pixel, diameter = section.side / FINE_PX, float(2 * np.median(section.fibres[:, 2]))
    coverage = rasterise(section, FINE_PX)
    fibre = np.asarray(coverage.fibre > 0.5, dtype=np.uint8)
    resin = np.asarray(1 - fibre - (coverage.void > 0.5), dtype=np.uint8)
    pockets = regions(pocket_mask(resin, diameter / pixel))
    return {
        "fibre_fraction_variation": fraction_variation(fibre, diameter / pixel) or 0.0,
        "resin_rich_area_fraction": pockets.fraction,
        "resin_pocket_largest_um": pixel * (pockets.largest_diameter or 0.0),
        "matrix_chord_length_um": pixel * (mean_chord(resin) or 0.0),
    }


def _compare_section(rng: np.random.Generator, pairs: Pairs) -> None:
    section = random_section(draw_recipe(rng), side=SIDE_UM, rng=rng)
    section = _enlarged(section, rng.uniform(0.8, 1.25))
    truth = section_truth(section)
    for lab in LABS:
        grey = _photograph(section, lab.microscope, rng)
        _add(pairs, truth, grey, lab.microscope.um_per_px(section.side))


def _enlarged(section: Section, factor: float) -> Section:
    # all fibres that are drawn are 7 µm thick
    lengths = np.array([factor, factor, factor, factor, 1.0])
    return Section(
        side=section.side * factor,
        fibres=section.fibres * factor,
        voids=section.voids * lengths,
        cracks=tuple(line * factor for line in section.cracks),
    )


def _compare_quality(rng: np.random.Generator, pairs: Pairs) -> None:
    section = random_section(draw_recipe(rng), side=SIDE_UM, rng=rng)
    clean = replace(LABS[0].microscope, noise=0.0)
    grey = _photograph(section, clean, rng)
    for sigma in (0.005, 0.01, 0.02, 0.03, 0.05):
        noisy = grey + rng.normal(0, sigma, grey.shape).astype(np.float32)
        _add(pairs, {"noise": sigma}, np.clip(noisy, 0, 1), None)
    for blur in (0.6, 1.0, 1.5, 2.0, 3.0, 4.0):
        for sigma in (0.0, 0.02):
            blurred = cv2.GaussianBlur(grey, (0, 0), blur)
            noisy = blurred + rng.normal(0, sigma, grey.shape).astype(np.float32)
            # sharper is larger
            _add(pairs, {"focus": -blur}, np.clip(noisy, 0, 1), None)


def _photograph(section: Section, microscope: Microscope, rng: np.random.Generator) -> np.ndarray:
    levels = micrograph(section, microscope, rng)
    return np.asarray(levels / np.float32(2**microscope.bit_depth - 1), dtype=np.float32)


def _add(pairs: Pairs, truth: dict[str, float], grey: np.ndarray, um_per_px: float | None) -> None:
    names = list(truth)
    values = pool_descriptors(
        describe(grey, names, um_per_px)[None], names, has_scale=um_per_px is not None
    )
    for (name, expected), value in zip(truth.items(), values, strict=True):
        pairs[name].append((expected, float(value)))


def _milliseconds(rng: np.random.Generator) -> dict[str, float]:
    section = random_section(
        Recipe(fibre_fraction=0.5, voids_um=(20.0, 9.0), cracks_um=(30.0,)),
        side=TIMED_SIDE_UM,
        rng=rng,
    )
    grey = _photograph(section, replace(LABS[0].microscope, num_px=TIMED_PX), rng)

    def timed(names: list[str]) -> float:
        best = np.inf
        for _ in range(4):
            start = time.perf_counter()
            describe(grey, names, 0.2)
            best = min(best, time.perf_counter() - start)
        return best * 1e3 / (grey.size / 1e6)

    return {name: timed([name]) for name in DESCRIPTORS} | {"all": timed(list(DESCRIPTORS))}


def _rows(pairs: Pairs, milliseconds: dict[str, float]) -> Iterator[tuple[str, ...]]:
    in_pixels = {"correlation_length_um", "grain_intercept_um"}
    for name, descriptor in DESCRIPTORS.items():
        truth, values = np.array(pairs[name]).T
        unit = descriptor.unit(has_scale=name not in in_pixels).replace("dimensionless", "–")
        if name == "focus":
            error, agreement = "–", f"{spearmanr(truth, values).statistic:.3f} (rank)"
        else:
            # what rounding leaves of an exact count is no error
            error = f"{np.median(np.abs(values - truth)).round(9):.3g}"
            agreement = f"{np.corrcoef(truth, values)[0, 1]:.3f}"
        span = f"{truth.min():.3g} to {truth.max():.3g}"
        yield name, unit, str(len(truth)), span, error, agreement, f"{milliseconds[name]:.0f}"
    yield "all at once", "", "", "", "", "", f"{milliseconds['all']:.0f}"


def _alarms(pairs: Pairs) -> str:
    truth, values = np.array(pairs["crack_length_density"]).T
    return (
        f"Cracks are seen on {np.count_nonzero(values[truth == 0])} of "
        f"{np.count_nonzero(truth == 0)} pictures of sections without any, and on "
        f"{np.count_nonzero(values[truth > 0])} of {np.count_nonzero(truth)} of sections with some."
    )


def _table(pairs: Pairs, milliseconds: dict[str, float], *, markdown: bool) -> Table:
    table = Table(box=MARKDOWN if markdown else SIMPLE_HEAD)
    for heading in ("descriptor", "unit"):
        table.add_column(heading, no_wrap=True)
    for heading in ("images", "truth", "median error", "correlation", "ms/Mpx"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in _rows(pairs, milliseconds):
        table.add_row(*row)
    return table


if __name__ == "__main__":
    main()
