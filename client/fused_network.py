"""A backbone as few, large steps for a processor: what oneDNN does best, and torch alone does not.

Torch picks a slower convolution for small kernels wherever it may use one thread only, lays
weights out anew for each call, and takes a pass over memory for each activation and each sum.
Here every convolution is oneDNN's, with its weights laid out once, and what follows it is done
while the values are still in registers. These are the steps that ``torch.compile`` makes of a
network, without its compiler. The sums are the same, so that results differ by rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from client.backbones import Network
from client.efficientnet_lite import BLOCKS_ALONE, EfficientNetLite0, Mean, TileByTile


class Activation(NamedTuple):
    """What follows a convolution, as oneDNN's steps name it."""

    name: str
    numbers: tuple[float, ...] = ()


NOTHING = Activation("none")
RELU = Activation("relu")
RELU6 = Activation("hardtanh", (0.0, 6.0))

Shapes = dict[nn.Conv2d, Sequence[int]]


class FusedConv2d(nn.Module):
    """A convolution and its activation in one step; a tensor may be added in between.

    Parameters
    ----------
    conv : Conv2d
        On the processor, with its batch norm folded into it.
    shape : sequence of int
        Of the images that it will see most, (n, channels, height, width). Others work, slower.
    activation : Activation
        After a sum oneDNN has none but `NOTHING` and `RELU`.
    """

    weight: Tensor

    def __init__(self, conv: nn.Conv2d, shape: Sequence[int], activation: Activation) -> None:
        super().__init__()
        self._where = list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups
        self._activation = activation
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(
            conv.weight.detach(), *self._where, list(shape)
        )
        self.bias = conv.bias

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Return ``activation(conv(x) + added)``; what is added is overwritten by it."""
        name, numbers = self._activation
        if added is None:
            result: Tensor = torch.ops.mkldnn._convolution_pointwise.default(
                x, self.weight, self.bias, *self._where, name, list(numbers), ""
            )
        else:
            after = None if name == "none" else name
            result = torch.ops.mkldnn._convolution_pointwise_.binary(
                added, x, self.weight, self.bias, *self._where, "add", None, after,
                list(numbers), None,
            )  # fmt: skip
        return result


class _Block(nn.Module):
    """Convolutions in a row; the last one may add what came in, or a convolution of it."""

    def __init__(
        self, convs: Sequence[FusedConv2d], *, adds: bool, shortcut: FusedConv2d | None = None
    ) -> None:
        super().__init__()
        self._first, self._last = nn.ModuleList(convs[:-1]), convs[-1]
        self._adds, self._shortcut = adds, shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for conv in self._first:
            out = conv(out)
        if not self._adds:
            return self._last(out)  # type: ignore[no-any-return]
        # nobody else looks at what came in: the sum may take its place
        return self._last(out, x if self._shortcut is None else self._shortcut(x))  # type: ignore[no-any-return]


def fuse(network: Network, tile_px: int, num_tiles: int) -> Network:
    """Build a network of fused steps.

    Parameters
    ----------
    network : Network
        With an `EfficientNetLite0` or a ResNet of torchvision, its batch norms folded, in
        evaluation mode, on the processor.
    tile_px : int
        Side of the tiles that it will see.
    num_tiles : int
        How many it will mostly see at once.

    Returns
    -------
    Network
        Computes the same within rounding.

    Raises
    ------
    RuntimeError, AttributeError, TypeError
        If this build of torch lacks oneDNN's steps, or calls them by other names.
    """
    image = torch.zeros((1, network.num_channels, tile_px, tile_px), dtype=network.dtype)
    shapes = _shapes(network.backbone, image, num_tiles)
    if isinstance(network.backbone, EfficientNetLite0):
        steps = _fused_lite(network.backbone, shapes)
    else:
        steps = _fused_resnet(network.backbone, shapes)
    made = Network(steps, network.normalise, network.num_channels)
    made.dtype = network.dtype
    with torch.inference_mode():
        made(image[:, 0].float())
    return made


def _shapes(backbone: nn.Module, image: Tensor, num_tiles: int) -> Shapes:
    """Return the shape of what each convolution sees when there are so many tiles like `image`."""
    shapes: Shapes = {}

    def note(module: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(module, nn.Conv2d)
        shapes[module] = (num_tiles, *inputs[0].shape[1:])

    convs = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    hooks = [conv.register_forward_pre_hook(note) for conv in convs]
    try:
        with torch.inference_mode():
            backbone(image)
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def _fuse(conv: nn.Module, shapes: Shapes, activation: Activation) -> FusedConv2d:
    assert isinstance(conv, nn.Conv2d)
    return FusedConv2d(conv, shapes[conv], activation)


def _fused_lite(backbone: EfficientNetLite0, shapes: Shapes) -> nn.Module:
    alone: Shapes = {conv: (1, *shape[1:]) for conv, shape in shapes.items()}
    steps: list[nn.Module] = [_fuse(backbone._conv_stem, alone, RELU6)]
    for number, block in enumerate(backbone._blocks):
        seen = alone if number < BLOCKS_ALONE else shapes
        children = dict(block.named_children())
        convs = [
            _fuse(children[name], seen, RELU6)
            for name in ("_expand_conv", "_depthwise_conv")
            if name in children
        ]
        convs.append(_fuse(children["_project_conv"], seen, NOTHING))
        steps.append(_Block(convs, adds=bool(block.adds)))
    first, rest = steps[: 1 + BLOCKS_ALONE], steps[1 + BLOCKS_ALONE :]
    head = _fuse(backbone._conv_head, shapes, RELU6)
    return nn.Sequential(TileByTile(first), *rest, head, Mean())


def _fused_resnet(backbone: nn.Module, shapes: Shapes) -> nn.Module:
    children = dict(backbone.named_children())
    steps = [_fuse(children["conv1"], shapes, RELU), children["maxpool"]]
    for layer in ("layer1", "layer2", "layer3", "layer4"):
        for block in children[layer].children():
            parts = dict(block.named_children())
            names = [name for name in ("conv1", "conv2", "conv3") if name in parts]
            shortcut = None
            if parts.get("downsample") is not None:
                shortcut = _fuse(next(parts["downsample"].children()), shapes, NOTHING)
            convs = [_fuse(parts[name], shapes, RELU) for name in names]
            steps.append(_Block(convs, adds=True, shortcut=shortcut))
    return nn.Sequential(*steps, Mean())
