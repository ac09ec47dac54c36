"""``crossply lab export``: the head of a released model, for programs without crossply."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The folder of a released model.")],
    out: Annotated[Path, typer.Argument(metavar="FILE.onnx", help="The file to write.")],
) -> None:
    """Write the head with its scaler as ONNX: features in, targets in their units out."""
    from client.folders import require_model
    from client.onnx_head import INPUT, OUTPUT, onnx_bytes
    from common.files import write_atomically
    from common.release import load_release
    from common.units import symbol

    require_model(model)
    released = load_release(model)
    write_atomically(out, onnx_bytes(released))
    federation = released.federation
    named = (f"{name} ({symbol(t.unit) or '1'})" for name, t in federation.targets.items())
    typer.echo(
        f"{out}: {INPUT} (specimens x {federation.num_features}, float32, as extracted) to "
        f"{OUTPUT} (specimens x {len(federation.targets)}, float64): {', '.join(named)}."
    )
