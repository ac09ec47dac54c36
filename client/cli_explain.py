"""``crossply lab explain``: what a released model leans on at this lab. Nothing is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

    from client.alone import Predictor
    from client.dataset import Dataset
    from client.importance import Importance, PartialDependence
    from common.federation import Federation

SEEN = (
    "these are all specimens of the lab; where it took part in training the model, four of five "
    "were trained on, and the error on new specimens is larger: the lab's report.html has it, of "
    "those that were held out"
)
"""What an error over specimens that trained the model is not to be taken for."""


def explain(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The folder of a released model.")],
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The lab's folder, which holds lab.toml.")
    ],
    saliency: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw which parts of a micrograph matter, too."),
    ] = None,
    specimen: Annotated[
        str | None, typer.Option(metavar="ID", help="Whose first micrograph; the first one's.")
    ] = None,
    shared: Annotated[
        bool,
        typer.Option("--shared", help="Explain the model as all labs have it."),
    ] = False,
    repeats: Annotated[
        int, typer.Option(min=2, max=10_000, help="How often values are dealt out.")
    ] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Say what a model leans on, over the lab's specimens. Nothing is sent.

    At a lab that took part, the version that the lab predicts with is explained.
    """
    from rich.console import Console

    from client.dataset import load_dataset
    from client.feature_store import FeatureStore, default_folder
    from client.features import extract
    from client.folders import require_model
    from client.importance import partial_dependence, permutation_importance
    from client.own_version import load_own_version
    from client.prediction import predictor_of, remarks_on_versions, versions_of
    from common.files import write_atomically
    from common.release import load_release

    require_model(model)
    released = load_release(model)
    federation = released.federation
    dataset = load_dataset(folder, federation)
    row = _row_of(specimen, dataset)
    specimens = extract(dataset, federation, FeatureStore(default_folder()))
    own = None if shared else load_own_version(model, released)
    predict = predictor_of(released, own)
    importance = permutation_importance(predict, specimens, federation, repeats=repeats)
    dependence = partial_dependence(predict, specimens, federation)
    if as_json:
        record = _record(importance, dependence, federation)
        for target, version in versions_of(released, own).items():
            record[target]["version"] = version
        typer.echo(json.dumps(record, indent=2))
    else:
        console = Console()
        for index, name in enumerate(federation.targets):
            console.print(_table(importance, dependence, federation, index, name))
    for remark in remarks_on_versions(released, own):
        typer.echo(f"Note: {remark}.", err=True)
    typer.echo(f"Note: {SEEN}.", err=True)
    if saliency is not None:
        write_atomically(saliency, _saliency(dataset, row, federation, predict))
        typer.echo(f"{saliency} shows {dataset.micrographs[row][0].name}.", err=True)


def _row_of(specimen: str | None, dataset: Dataset) -> int:
    from client.findings import printable
    from common.errors import ConfigurationError

    if specimen is None:
        return 0
    if specimen not in dataset.specimens:
        raise ConfigurationError(f"the lab has no specimen {printable(specimen)!r}")
    return dataset.specimens.index(specimen)


def _saliency(dataset: Dataset, row: int, federation: Federation, predict: Predictor) -> bytes:
    from client.engine_choice import choose_engine
    from client.engines import load_engine
    from client.features import task_of
    from client.saliency import SpecimenView, occlusion
    from client.saliency_plot import saliency_png

    backbone = federation.backbone
    engine = load_engine(backbone, federation.imaging.tile_px, choose_engine(backbone))
    tasks = [task_of(image, dataset, federation) for image in dataset.micrographs[row]]
    view = SpecimenView(tasks, 0, engine, dataset.covariates[row])

    def predict_one(grey: np.ndarray) -> np.ndarray:
        told: np.ndarray = predict(view.features(grey)[None])[0]
        return told

    return saliency_png(occlusion(view.grey, predict_one), federation)


def _table(
    importance: Importance,
    dependence: tuple[PartialDependence, ...],
    federation: Federation,
    index: int,
    name: str,
) -> Table:
    """Lay out what one target leans on, and where descriptors and covariates lead it."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    from common.units import symbol

    unit = symbol(federation.targets[name].unit)
    count, mae = int(importance.num_specimens[index]), importance.mae[index]
    title = f"{name}: MAE {mae:.3g} {unit} over {count} specimens" if count else f"{name}: none"
    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD)
    table.add_column("dealt out anew")
    table.add_column(f"MAE grows by ({unit or '1'})", justify="right")
    table.add_column("as it goes")
    courses = {of_one.group.name: of_one for of_one in dependence}
    for row, group in enumerate(importance.groups):
        grows = f"{importance.increase[row, index]:.3g} ± {importance.spread[row, index]:.2g}"
        course = ""
        if group.name in courses:
            values, told = courses[group.name].values, courses[group.name].predicted[:, index]
            course = (
                f"{values[0]:.3g} to {values[-1]:.3g} {symbol(group.unit or '')}: "
                f"{told[0]:.3g} to {told[-1]:.3g} {unit}"
            )
        table.add_row(escape(group.name), grows if count else "–", escape(course))
    return table


def _record(
    importance: Importance, dependence: tuple[PartialDependence, ...], federation: Federation
) -> dict[str, Any]:
    import numpy as np

    def known(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    courses = {of_one.group.name: of_one for of_one in dependence}
    return {
        name: {
            "unit": target.unit,
            "num_specimens": int(importance.num_specimens[index]),
            "mae": known(importance.mae[index]),
            "groups": [
                {
                    "name": group.name,
                    "kind": group.kind,
                    "unit": group.unit,
                    "increase": known(importance.increase[row, index]),
                    "spread": known(importance.spread[row, index]),
                    "values": courses[group.name].values.tolist() if group.name in courses else [],
                    "predicted": (
                        courses[group.name].predicted[:, index].tolist()
                        if group.name in courses
                        else []
                    ),
                }
                for row, group in enumerate(importance.groups)
            ],
        }
        for index, (name, target) in enumerate(federation.targets.items())
    }
