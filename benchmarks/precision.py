"""How much of a network's meaning each precision keeps: cosine and effect on the reference set.

python -m benchmarks.precision

Half precision is emulated on any processor: weights, inputs and outputs of each convolution are
rounded to it, and sums are kept in float32, as hardware that has it does.
"""

from __future__ import annotations

from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from client.backbones import Network, fast_network
from client.reference import (
    SHIPPED_BACKBONE,
    SHIPPED_TILE_PX,
    agreement,
    draw_reference_set,
    reference_tiles,
    reference_vectors,
)


def rounded(network: Network, dtype: torch.dtype) -> Network:
    """Return a copy of a network whose convolutions round to a precision."""
    made = network.on(torch.device("cpu"), torch.float32)

    def before(module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(value.to(dtype).float() for value in inputs)

    def after(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output.to(dtype).float()

    for module in made.modules():
        if isinstance(module, torch.nn.Conv2d):
            for parameter in module.parameters():
                parameter.data = parameter.data.to(dtype).float()
            module.register_forward_pre_hook(before)
            module.register_forward_hook(after)
    return made


def main() -> None:
    """Print one row a precision."""
    micrographs, fractions = draw_reference_set()
    cut = reference_tiles(micrographs, SHIPPED_TILE_PX)
    reference = reference_vectors(SHIPPED_BACKBONE, cut)
    network = fast_network(SHIPPED_BACKBONE, SHIPPED_TILE_PX)
    table = Table(title="EfficientNet-Lite0 on the reference set", box=SIMPLE_HEAD)
    for heading in ("precision", "cosine", "effect"):
        table.add_column(heading)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        with torch.inference_mode():
            vectors = rounded(network, dtype)(torch.from_numpy(cut)).numpy()
        found = agreement(vectors, reference, fractions)
        table.add_row(str(dtype), f"{found.cosine:.6f}", f"{found.effect:.4%}")
    Console().print(table)


if __name__ == "__main__":
    main()
