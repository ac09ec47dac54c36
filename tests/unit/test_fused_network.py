"""The network of fused steps computes what the plain one does."""

import copy
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import models

import client.engines
from client.backbones import Network, fast_network, plain_network
from client.engine_choice import EngineChoice, cpu_has_bfloat16
from client.engines import load_engine
from client.fused_network import NOTHING, RELU, RELU6, FusedConv2d, fuse
from common.federation import Backbone

LITE0 = Backbone(name="efficientnet_lite0")


def backbone_of(name: str, folder: Path) -> Backbone:
    if name == "efficientnet_lite0":
        return LITE0
    torch.manual_seed(0)
    network = models.get_model(name, weights=None)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    path = folder / f"{name}.pth"
    torch.save(network.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Backbone.model_validate({"name": name, "weights": str(path), "sha256": digest})


def fused(backbone: Backbone, tile_px: int, dtype: torch.dtype) -> Network:
    return fuse(fast_network(backbone, tile_px).on(torch.device("cpu"), dtype), tile_px, 4)


def test_a_step_is_a_convolution_then_a_sum_then_an_activation() -> None:
    conv = torch.nn.Conv2d(1, 1, 1).requires_grad_(False)
    conv.weight.fill_(2.0)
    assert conv.bias is not None
    conv.bias.fill_(-1.0)
    image = torch.tensor([0.0, 1.0, 3.0]).reshape(1, 1, 1, 3)
    added = torch.tensor([0.0, -2.0, 4.0]).reshape(1, 1, 1, 3)

    def values(step: FusedConv2d, *inputs: torch.Tensor) -> list[float]:
        with torch.inference_mode():
            # what is added is overwritten
            return step(*(tensor.clone() for tensor in inputs)).flatten().tolist()  # type: ignore[no-any-return]

    kinds = NOTHING, RELU, RELU6
    plain, positive, bounded = (FusedConv2d(conv, image.shape, kind) for kind in kinds)
    assert values(plain, image) == [-1.0, 1.0, 5.0]
    assert values(plain, image, added) == [-1.0, -1.0, 9.0]
    assert values(positive, image) == [0.0, 1.0, 5.0]
    assert values(positive, image, added) == [0.0, 0.0, 9.0]
    assert values(bounded, 2 * image) == [0.0, 3.0, 6.0]


@pytest.mark.parametrize("tile_px", [32, 36, 97, 128])
@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "resnet50"])
def test_it_computes_the_same(name: str, tile_px: int, tmp_path: Path) -> None:
    backbone = backbone_of(name, tmp_path)
    tiles = torch.rand(6, tile_px, tile_px, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = plain_network(backbone)(tiles)
        network, before = fused(backbone, tile_px, torch.float32), tiles.clone()
        for found in (network(tiles), torch.cat([network(tile[None]) for tile in tiles])):
            error = torch.linalg.norm(found - expected) / torch.linalg.norm(expected)
            assert float(error) < 1e-5
        assert torch.equal(tiles, before)
    assert expected.std() > 0.01


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="this processor has no bfloat16")
def test_half_precision_stays_near(tmp_path: Path) -> None:
    backbone = backbone_of("resnet50", tmp_path)
    tiles = torch.rand(4, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = plain_network(backbone)(tiles)
        found = fused(backbone, 64, torch.bfloat16)(tiles)
    cosines = torch.nn.functional.cosine_similarity(found, expected)
    assert found.dtype == torch.float32
    assert float(cosines.min()) > 0.999


def test_a_torch_without_these_steps_still_makes_vectors(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def renamed(*_: object) -> None:
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute")

    choice = EngineChoice(engine="torch", device="cpu", precision="float32")
    tiles = np.random.default_rng(0).random((3, 52, 52), dtype=np.float32)
    expected = load_engine(LITE0, 52, choice).vectors(tiles)
    assert not caplog.messages, "this version of torch has them"
    load_engine.cache_clear()
    monkeypatch.setattr(client.engines, "fuse", renamed)
    found = load_engine(LITE0, 52, choice).vectors(tiles)
    load_engine.cache_clear()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)
    assert "torch lacks its fused convolutions" in caplog.text


def test_the_plain_network_is_left_as_it_was() -> None:
    network = fast_network(LITE0, 64).on(torch.device("cpu"), torch.float32)
    before = copy.deepcopy(network.state_dict())
    fuse(network, 64, 4)
    assert before.keys() == network.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
