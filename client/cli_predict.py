"""``crossply lab predict``: what a released model says of images. Nothing is sent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from client.findings import Findings
    from client.own_version import OwnVersion
    from client.prediction import Predictions
    from client.query_images import Question
    from common.release import ReleasedModel


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The folder of a released model.")],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Images, or folders of images.")
    ],
    um_per_px: Annotated[
        str | None, typer.Option(help='How many µm a pixel has; or "metadata".')
    ] = None,
    lab: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Read images as the lab.toml in this folder says."),
    ] = None,
    covariate: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Such as cure='180 degC'.")
    ] = None,
    one_specimen: Annotated[
        bool, typer.Option("--one-specimen", help="All images show one specimen.")
    ] = False,
    shared: Annotated[
        bool,
        typer.Option("--shared", help="Use the model as all labs have it, not this lab's version."),
    ] = False,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a table too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Predict from images, with intervals, and whether they are like what was learned from."""
    from client.workers import WORKERS

    # before torch is imported, which takes longer than the decoder needs to start
    WORKERS.start_one()
    from client.folders import require_model
    from client.own_version import load_own_version
    from client.prediction import read_covariates, remarks_on_model, versions_of
    from client.prediction_output import as_csv, sentences
    from client.prediction_output import as_json as predictions_as_json
    from client.query_images import Question, reading_of
    from common.files import write_atomically
    from common.release import load_release

    require_model(model)
    released = load_release(model)
    federation = released.federation
    question = Question(
        paths=tuple(images),
        data=reading_of(federation, um_per_px, lab),
        covariates=read_covariates(covariate or [], federation),
        one_specimen=one_specimen,
    )
    own = None if shared else load_own_version(model, released)
    predictions, findings = _predict(question, released, own)
    for finding in findings.items:
        typer.echo(finding.sentence(), err=True)
    if predictions is not None:
        if as_json:
            source = "this lab" if own else "all labs" if released.intervals else None
            versions = versions_of(released, own)
            typer.echo(predictions_as_json(predictions, federation, source, versions))
        else:
            for line in sentences(predictions, federation, is_named=bool(findings.stops)):
                typer.echo(line)
        if csv is not None:
            write_atomically(csv, as_csv(predictions, federation))
        for remark in remarks_on_model(released, own):
            typer.echo(f"Note: {remark}.", err=True)
    if findings.stops:
        raise typer.Exit(1)


def _predict(
    question: Question, released: ReleasedModel, own: OwnVersion | None
) -> tuple[Predictions | None, Findings]:
    import numpy as np
    from rich.console import Console

    from client.feature_store import FeatureStore, default_folder
    from client.features import features_of
    from client.prediction import predict_specimens
    from client.query_images import read_images
    from common.progress import steps

    dataset, findings = read_images(question, released.federation)
    if dataset is None:
        return None, findings
    with steps(Console(stderr=True)) as progress:
        total = sum(len(of_specimen) for of_specimen in dataset.micrographs)
        bar = progress.add_task("micrographs to features", total=total)
        features, made = features_of(
            dataset,
            released.federation,
            FeatureStore(default_folder()),
            lambda: progress.advance(bar),
            lambda row, why: findings.stop(dataset.specimens[row], why, ""),
        )
    if not made.any():
        return None, findings
    specimens = np.array(dataset.specimens)[made].tolist()
    return predict_specimens(released, own, specimens, features), findings
