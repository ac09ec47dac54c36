"""Weights of backbones: fetched or read, unpacked as tensors only, and fitted key by key."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from client.reading.checksums import sha256_of
from client.weights_identity import TORCHVISION_DIGESTS, packaged_lite0_path
from common.errors import WeightsError

log = logging.getLogger(__name__)

SILENCE_S = 30.0
"""How long a server of weights may say nothing."""


def read_weights(path: Path, sha256: str | None) -> dict[str, Tensor]:
    """Read a file of weights, after its SHA-256 has been compared if one is given.

    Raises
    ------
    WeightsError
        If the file is missing, altered, or holds anything but named tensors.
    """
    try:
        if sha256 is not None and (found := sha256_of(path)) != sha256:
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


def packaged_lite0() -> dict[str, Tensor]:
    """Return the ImageNet weights of EfficientNet-Lite0 that are installed as a package."""
    return read_weights(packaged_lite0_path(), None)


def torchvision_state(name: str) -> dict[str, Tensor]:
    """Return torchvision's ImageNet weights of a ResNet, from its cache or its server.

    Raises
    ------
    WeightsError
        If they cannot be fetched, or what lies in the cache is not they; says what to do instead.
    """
    from torchvision import models

    url = models.get_model_weights(name)["IMAGENET1K_V1"].url
    name_of_file = url.rsplit("/", 1)[-1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name_of_file
    if not path.exists():
        log.info("fetching %s, tens of megabytes", url)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _bounded_sockets():
                torch.hub.download_url_to_file(
                    url, str(path), hash_prefix=TORCHVISION_DIGESTS[name], progress=False
                )
        except (OSError, RuntimeError) as error:
            # torch raises RuntimeError where what it fetched has another digest
            raise WeightsError(
                f"ImageNet weights of {name} could not be fetched ({error}); copy the file "
                f"{name_of_file} to this machine and name it, with its sha256, "
                "under [backbone] in federation.toml, or use efficientnet_lite0, whose weights are "
                "installed"
            ) from error
    try:
        found = sha256_of(path)
    except OSError as error:
        raise WeightsError(f"{path}: weights cannot be read ({error.strerror})") from error
    # before it is unpacked: torch compares a digest when it fetches a file, not when it finds one
    if not found.startswith(TORCHVISION_DIGESTS[name]):
        raise WeightsError(f"{path} is damaged or has been altered; remove it, to be fetched again")
    return read_weights(path, None)


@contextmanager
def _bounded_sockets() -> Iterator[None]:
    """Give up on a server that is silent: torch's fetching has no bound of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def load_checked(network: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Load weights key by key; only the classifier that is cut off may be left over.

    Raises
    ------
    WeightsError
        Names the first key that is missing, unknown, or of another shape.
    """
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
