"""``crossply lab features`` and ``crossply lab cache``: the slow part ahead of time."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from client.cli_options import Agreement, Folder

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

    from common.federation import Federation


def features(folder: Folder, federation: Agreement = None) -> None:
    """Make the features of a lab's micrographs ahead of time, and keep them. Nothing is sent."""
    from rich.console import Console

    from client.dataset import load_dataset
    from client.feature_store import FeatureStore, default_folder
    from client.features import extract
    from client.folders import find_federation
    from common.federation import load_federation
    from common.progress import steps

    agreement = load_federation(federation or find_federation(folder))
    dataset = load_dataset(folder, agreement)
    store = FeatureStore(default_folder())
    with steps(Console(stderr=True)) as progress:
        total = sum(len(of_specimen) for of_specimen in dataset.micrographs)
        bar = progress.add_task("micrographs to features", total=total)
        specimens = extract(dataset, agreement, store, lambda: progress.advance(bar))
    count, length = specimens.features.shape
    if agreement.named_features:
        Console().print(_named_table(specimens.features, agreement))
    typer.echo(f"{count} specimens have their {length} features, kept in {store.folder}.")


def _named_table(features: np.ndarray, federation: Federation) -> Table:
    """Lay out the lab's own values of each descriptor and covariate."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    from common.units import symbol

    table = Table(box=SIMPLE_HEAD)
    table.add_column("feature with a name", no_wrap=True)
    for heading in ("median", "lowest", "highest"):
        table.add_column(heading, justify="right")
    table.add_column("unit")
    values = features[:, federation.num_deep_features :].T
    for (name, unit), of_name in zip(federation.named_features.items(), values, strict=True):
        ordered = sorted(of_name.tolist())
        shown = (ordered[len(ordered) // 2], ordered[0], ordered[-1])
        table.add_row(escape(name), *(f"{value:.3g}" for value in shown), symbol(unit))
    return table


def cache(
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove what has not been used for a while.")
    ] = False,
    unused: Annotated[
        str, typer.Option(metavar="DURATION", help="How long is a while, for --prune.")
    ] = "90 days",
) -> None:
    """Say how much room kept features take; remove those that are not used."""
    from client.feature_store import FeatureStore, default_folder
    from client.file_digests import DIGESTS, forget_missing
    from common.errors import ConfigurationError, UnitError
    from common.units import seconds

    try:
        age = timedelta(seconds=seconds(unused))
    except (UnitError, OverflowError) as error:
        raise ConfigurationError(
            f'--unused: {unused!r} is not a duration; write for example --unused "90 days"'
        ) from error
    store = FeatureStore(default_folder())
    before = store.summary()
    if prune:
        store.prune(age)
        forget_missing(store.folder / DIGESTS)
    found = store.summary()
    typer.echo(f"{store.folder}: {found.num_vectors} vectors, {found.num_bytes / 1e6:.1f} MB.")
    if prune:
        freed = (before.num_bytes - found.num_bytes) / 1e6
        typer.echo(f"{before.num_vectors - found.num_vectors} removed, {freed:.1f} MB.")
    elif found.oldest_use is not None:
        typer.echo(f"The one unused for longest was last used on {found.oldest_use}.")
