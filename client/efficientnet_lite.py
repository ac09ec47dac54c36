"""EfficientNet-Lite0, the backbone whose weights need no download."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LITE0_STAGES = (
    # repeats, kernel, stride, expansion, channels out: EfficientNet-B0 without squeeze-excite,
    # Tan & Le 2019 (arXiv 1905.11946), table 1, and the Lite variant of the TPU repository
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class _SameConv2d(nn.Conv2d):
    """Convolution padded as TensorFlow's "same": with stride 2 the odd pixel goes after."""

    def forward(self, x: Tensor) -> Tensor:
        (left, right), (above, below) = (self.pads(length) for length in (x.shape[3], x.shape[2]))
        x = F.pad(x, (left, right, above, below))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, 1, self.groups)

    def pads(self, length: int) -> tuple[int, int]:
        """Return how many pixels go before and after an axis of some length."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        return total // 2, total - total // 2


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class _InvertedResidual(nn.Module):
    """Expand, convolve each channel alone, project; added to the input where shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        if expansion > 1:
            self._expand_conv = nn.Conv2d(inputs, wide, 1, bias=False)
            self._bn0 = _norm(wide)
        self._depthwise_conv = _SameConv2d(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = _norm(wide)
        self._project_conv = nn.Conv2d(wide, outputs, 1, bias=False)
        self._bn2 = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out = x
        if hasattr(self, "_expand_conv"):
            out = F.relu6(self._bn0(self._expand_conv(out)), inplace=True)
        out = F.relu6(self._bn1(self._depthwise_conv(out)), inplace=True)
        out = self._bn2(self._project_conv(out))
        return torch.add(x, out) if self.adds else out


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 up to its pooled 1280 channels; parameters named as in the weights file.

    Examples
    --------
    >>> EfficientNetLite0().eval()(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 1280])
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _SameConv2d(3, 32, 3, 2, bias=False)
        self._bn0 = _norm(32)
        self._blocks = nn.ModuleList()
        widths = [32, *(stage[-1] for stage in LITE0_STAGES)]
        for (inputs, outputs), (repeats, kernel, stride, expansion, _) in zip(
            pairwise(widths), LITE0_STAGES, strict=True
        ):
            for index in range(repeats):
                first = index == 0
                self._blocks.append(
                    _InvertedResidual(
                        inputs if first else outputs,
                        outputs,
                        kernel,
                        stride if first else 1,
                        expansion,
                    )
                )
        self._conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self._bn1 = _norm(1280)

    def forward(self, x: Tensor) -> Tensor:
        """Map tiles of shape (n, 3, height, width) to vectors of shape (n, 1280)."""
        x = F.relu6(self._bn0(self._conv_stem(x)), inplace=True)
        for block in self._blocks:
            x = block(x)
        x = F.relu6(self._bn1(self._conv_head(x)), inplace=True)
        return x.mean((2, 3))


BLOCKS_ALONE = 4
"""Blocks from the beginning that make more of a batch of tiles than a processor's cache holds."""


class TileByTile(nn.Module):
    """Steps that each tile goes through alone, so that what is between them stays in the cache."""

    def __init__(self, steps: Sequence[nn.Module]) -> None:
        super().__init__()
        self._steps = nn.Sequential(*steps)

    def forward(self, x: Tensor) -> Tensor:
        """Map a batch tile by tile."""
        return torch.cat([self._steps(tile) for tile in torch.split(x, 1)])


class Mean(nn.Module):
    """The mean over height and width."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, height, width) to (n, channels)."""
        return x.mean((2, 3))


def first_blocks_alone(network: EfficientNetLite0) -> nn.Module:
    """Return what computes the same, its first blocks tile by tile: for a processor.

    Parameters
    ----------
    network : EfficientNetLite0
        Its batch norms folded into the convolutions before them.
    """
    first = [network._conv_stem, nn.ReLU6(inplace=True), *network._blocks[:BLOCKS_ALONE]]
    rest = [*network._blocks[BLOCKS_ALONE:], network._conv_head, nn.ReLU6(inplace=True), Mean()]
    return nn.Sequential(TileByTile(first), *rest)


LITE0_NORMS = {
    "_conv_stem": "_bn0",
    "_expand_conv": "_bn0",
    "_depthwise_conv": "_bn1",
    "_project_conv": "_bn2",
    "_conv_head": "_bn1",
}
"""The batch norm that follows each convolution, by their names in one module."""


def take_grey(network: EfficientNetLite0) -> EfficientNetLite0:
    """Fit a network to images of one channel, in place: the three that it was made for are equal.

    The first convolution then takes a third of the products.
    """
    stem = network._conv_stem
    stem.in_channels = 1
    stem.weight = nn.Parameter(stem.weight.sum(dim=1, keepdim=True), requires_grad=False)
    return network


def pad_symmetrically(network: EfficientNetLite0, tile_px: int) -> EfficientNetLite0:
    """Fit a network to one size of tile, so that no convolution pads in a pass of its own.

    A pixel of padding that goes after the image only, is a column of zeros before the kernel and
    padding on both sides: the same products are summed.

    Parameters
    ----------
    network : EfficientNetLite0
        Changed in place.
    tile_px : int
        Side of the tiles that it will see.
    """
    size = tile_px
    for module in list(network.modules()):
        for name, conv in module.named_children():
            if isinstance(conv, _SameConv2d):
                setattr(module, name, _padded_symmetrically(conv, size))
                size = -(-size // conv.stride[0])
    return network


def _padded_symmetrically(conv: _SameConv2d, length: int) -> nn.Conv2d:
    before, after = conv.pads(length)
    kernel = conv.kernel_size[0] + after - before
    padded = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        kernel,
        conv.stride[0],
        padding=after,
        groups=conv.groups,
    )
    widened = F.pad(conv.weight, (after - before, 0, after - before, 0))
    assert conv.bias is not None, "its batch norm has been folded into it"
    padded.weight, padded.bias = nn.Parameter(widened), conv.bias
    return padded
