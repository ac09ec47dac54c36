"""Labs against labs, as the coordinator's report shows them: models' errors, and distances."""

from __future__ import annotations

import numpy as np

from common.federation import Federation
from common.report.content import MOST_LABS, Matrix
from common.ridge import fit_ridge
from server.evidence import Products
from server.shift import distances
from server.state import RunResult


def matrices_of(federation: Federation, result: RunResult) -> tuple[Matrix, ...]:
    """Return the matrices of a run: models tried at other labs, and distances of features.

    Parameters
    ----------
    federation : Federation
    result : RunResult
    """
    products = result.products
    tried = _tried_heads(federation, result)
    if products is None or len(products.of_labs) > MOST_LABS:
        return tried
    names = tuple(products.of_labs)
    apart = Matrix(
        title="How far the labs' micrographs lie apart",
        rows=names,
        columns=names,
        values=distances(products.of_labs),
        reading="Distance of the features' distributions, in deviations of all specimens: "
        "0 is alike, beyond 1 two labs hardly overlap.",
    )
    # small labs are in the sums, and have too few held-out specimens to try a head on
    all_told = [
        set(names) <= set(matrix.rows) & set(matrix.columns) and np.isfinite(matrix.values).all()
        for matrix in tried
    ]
    linear = () if tried and all(all_told) else _linear_models(federation, result, products)
    return (*tried, *linear, apart)


def _tried_heads(federation: Federation, result: RunResult) -> tuple[Matrix, ...]:
    """Return what each lab's own head is worth at each lab, where that was agreed and told."""
    columns = tuple(sorted({lab for at_labs in result.crossed.values() for lab in at_labs}))
    if not columns:
        return ()
    found = []
    for column, (target, about) in enumerate(federation.targets.items()):
        own = [
            [at_labs[lab][column] if lab in at_labs else np.nan for lab in columns]
            for at_labs in result.crossed.values()
        ]
        shared = [_shared_error(result, lab, column) for lab in columns]
        matrix = Matrix(
            title=f"{target}: mean absolute error of each model at each lab",
            rows=(*result.crossed, "shared"),
            columns=columns,
            values=np.array([*own, shared]),
            unit=about.unit,
            reading="Read along a row: one model, tried on every lab's held-out specimens. Errors "
            "of labs' own models are rounded to two digits; a gap is what a lab keeps back, has "
            "too few specimens for, or an error beyond the target's range.",
            row_title="model of",
            column_title="tried on",
        )
        found.append(matrix)
    return tuple(found)


def _shared_error(result: RunResult, lab: str, column: int) -> float:
    errors = result.evaluation.errors.get(lab)
    found = None if errors is None else errors.metrics(column)["mae"]
    return float("nan") if found is None else found


def _linear_models(
    federation: Federation, result: RunResult, products: Products
) -> tuple[Matrix, ...]:
    """Return what linear models from each lab's sums are worth at the others' sums."""
    names = tuple(products.of_labs)
    least = federation.privacy.min_specimens
    fits = {lab: fit_ridge(sums) for lab, sums in products.of_labs.items()}
    squares = np.array(
        [
            [
                np.full(len(federation.targets), np.nan)
                if own == other or not _learned(products, own).any()
                else np.where(
                    _learned(products, own) & (products.of_labs[other].counts >= least),
                    fits[own].mean_square_over(products.of_labs[other]),
                    np.nan,
                )
                for other in names
            ]
            for own in names
        ]
    )
    return tuple(
        Matrix(
            title=f"{target}: error of each lab's own linear model at the other labs",
            rows=names,
            columns=names,
            values=np.sqrt(squares[:, :, column]) * result.standardiser.target_scale[column],
            unit=about.unit,
            reading="Root mean square error. Read along a row: one lab's model, tried on the "
            "others' specimens; a lab's own are left out, since its model has seen them.",
            row_title="model of",
            column_title="tried on",
        )
        for column, (target, about) in enumerate(federation.targets.items())
    )


def _learned(products: Products, lab: str) -> np.ndarray:
    learned: np.ndarray = products.of_labs[lab].counts >= 2
    return learned
