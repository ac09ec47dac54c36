"""Does a model that came from elsewhere fit its federation? Checksums tell of accidents alone.

Whoever writes a folder writes its checksums too. What does not fit would end in a traceback, or
be exported to programs that cannot know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.errors import StateError
from common.federation import MOST_COMPONENTS, Federation
from common.head_shapes import federation_shapes
from common.intervals import LEVELS, Intervals
from common.novelty import Novelty
from common.standardise import Standardiser

if TYPE_CHECKING:
    from common.head import HeadArrays

Shapes = Mapping[str, tuple[int, ...]]


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in whose arrays something is found that does not fit."""
    try:
        yield
    except StateError as error:
        raise StateError(
            f"{path} does not fit the federation file beside it: {error}; ask whoever released it "
            "for another copy"
        ) from error


def require_head(head: HeadArrays, federation: Federation) -> None:
    """Refuse a head that is not the federation's, or whose weights are not finite.

    Raises
    ------
    StateError
        Says what was found; does not name the file.
    """
    _require(head, federation_shapes(federation), "float32")
    _require_finite(head)


def require_standardiser(standardiser: Standardiser, federation: Federation) -> None:
    """Refuse a standardiser of other features or targets, or one that nothing can be divided by.

    Raises
    ------
    StateError
        Says what was found; does not name the file.
    """
    arrays = vars(standardiser)
    of_targets, of_features = (len(federation.targets),), (federation.num_features,)
    shapes = {name: of_targets if name.startswith("target") else of_features for name in arrays}
    _require(arrays, shapes, "float64")
    _require_finite(arrays)
    for name in ("feature_scale", "target_scale"):
        if (arrays[name] <= 0).any():
            raise StateError(f"{name} is not above zero")


def require_novelty(arrays: Mapping[str, np.ndarray], federation: Federation) -> None:
    """Refuse arrays that are no novelty of the federation's features.

    Raises
    ------
    StateError
        Says what was found; does not name the file.
    """
    found = arrays["directions"].shape if "directions" in arrays else ()
    columns = found[1] if len(found) == 2 and 1 <= found[1] <= MOST_COMPONENTS else 1
    _require(arrays, Novelty.shapes(federation.num_features, columns), "float64")
    _require_finite(arrays)
    if not arrays["directions"].any(axis=0).all():
        raise StateError("directions holds one without a length")
    if arrays["residual"][0] < 0:
        raise StateError("residual is below zero")


def require_intervals(intervals: Intervals, num_targets: int) -> None:
    """Refuse intervals of another number of targets; infinite ones are those that nobody knows.

    Raises
    ------
    StateError
        Says what was found; does not name the file.
    """
    quantile = {"quantile": intervals.quantile}
    _require(quantile, {"quantile": (len(LEVELS), num_targets)}, "float64")
    if not (intervals.quantile >= 0).all():
        raise StateError("quantile holds NaN, or a number below zero")


def _require(arrays: Mapping[str, np.ndarray], shapes: Shapes, dtype: str) -> None:
    if set(arrays) != set(shapes):
        raise StateError(f"expected the arrays {sorted(shapes)}, found {sorted(arrays)[:5]}")
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != dtype:
            raise StateError(
                f"{name}: expected {dtype} of shape {shape}, "
                f"found {array.dtype.name} of shape {array.shape}"
            )


def _require_finite(arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise StateError(f"{name} holds NaN or infinity")
