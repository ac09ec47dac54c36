"""Arguments that several commands of ``crossply lab`` take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Folder: TypeAlias = Annotated[
    Path, typer.Argument(metavar="DIR", help="The lab's folder, which holds lab.toml.")
]

Agreement: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--federation",
        help="federation.toml; looked for in DIR and its parent if not given.",
    ),
]
