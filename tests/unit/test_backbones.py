import copy
import hashlib
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torchvision.models import resnet18

from client.backbones import (
    fast_network,
    fold_norms,
    normalise_lite,
    normalise_torchvision,
    plain_network,
)
from client.efficientnet_lite import LITE0_NORMS, EfficientNetLite0
from client.weights_identity import TORCHVISION_DIGESTS
from common.errors import WeightsError
from common.federation import Backbone


def saved(path: Path, state: object) -> Backbone:
    torch.save(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Backbone(name="resnet18", weights=str(path), sha256=digest)


def test_the_packaged_weights_give_the_vectors_of_a_known_network(tmp_path: Path) -> None:
    backbone = plain_network(Backbone(name="efficientnet_lite0"))
    ramp = torch.linspace(0, 1, 96 * 96).reshape(1, 96, 96)
    vector = backbone(ramp)[0].double()
    # timm's tf_efficientnet_lite0 with the same weights copied key by key gives these
    assert int(vector.argmax()) == 872
    assert float(vector.sum()) == pytest.approx(53.76381, rel=1e-5)
    assert float(vector.norm()) == pytest.approx(9.727528, rel=1e-5)


def test_folding_batch_norms_changes_rounding_alone() -> None:
    torch.manual_seed(0)
    network = EfficientNetLite0().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    folded = fold_norms(copy.deepcopy(network), LITE0_NORMS)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    with torch.inference_mode():
        images = torch.rand(2, 3, 97, 128)
        expected = network(images)
        torch.testing.assert_close(folded(images), expected, rtol=1e-3, atol=1e-5)
    assert expected.std() > 0.01


@pytest.mark.parametrize("tile_px", [32, 36, 97, 128])
@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18"])
def test_the_fast_network_computes_the_same(name: str, tile_px: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    resnet = saved(tmp_path / "resnet.pth", resnet18(weights=None).state_dict())
    backbone = resnet if name == "resnet18" else Backbone(name="efficientnet_lite0")
    tiles = torch.rand(2, tile_px, tile_px)
    with torch.inference_mode():
        expected = plain_network(backbone)(tiles)
        torch.testing.assert_close(
            fast_network(backbone, tile_px)(tiles), expected, rtol=1e-3, atol=5e-5
        )
    assert expected.std() > 0.01


def test_same_padding_puts_the_odd_pixel_after() -> None:
    network = EfficientNetLite0()
    stem = network._conv_stem
    torch.nn.init.zeros_(stem.weight)
    stem.weight.data[0, 0, 0, 0] = 1.0
    image = torch.arange(16.0).reshape(1, 1, 4, 4).expand(1, 3, 4, 4)
    # stride 2 on an even size pads one pixel, below and right: the first tap sees pixel (0, 0)
    assert stem(image)[0, 0].tolist() == [[0.0, 2.0], [8.0, 10.0]]


def test_a_local_file_is_used_when_its_sha256_agrees(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = resnet18(weights=None)
    backbone = plain_network(saved(tmp_path / "resnet.pth", network.state_dict()))
    network.fc = torch.nn.Identity()
    tiles = torch.rand(2, 64, 64)
    grey = normalise_torchvision(tiles[:, None].expand(-1, 3, -1, -1))
    with torch.inference_mode():
        expected = network.eval()(grey)
    torch.testing.assert_close(backbone(tiles), expected, rtol=1e-4, atol=1e-5)


def test_an_altered_file_is_refused(tmp_path: Path) -> None:
    chosen = saved(tmp_path / "altered.pth", resnet18(weights=None).state_dict())
    with (tmp_path / "altered.pth").open("ab") as file:
        file.write(b"x")
    with pytest.raises(WeightsError, match=r"altered\.pth: SHA-256 is .*, the federation file"):
        plain_network(chosen)


def test_weights_of_another_network_are_refused_by_key(tmp_path: Path) -> None:
    state = resnet18(weights=None).state_dict()
    del state["layer1.0.conv1.weight"]
    with pytest.raises(WeightsError, match=r"do not fit resnet18: layer1\.0\.conv1\.weight"):
        plain_network(saved(tmp_path / "short.pth", state))


class _Dangerous:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("run",)


@pytest.mark.parametrize("content", [_Dangerous(), [1, 2, 3], {"a": 1}])
def test_nothing_but_tensors_is_unpacked(tmp_path: Path, content: object) -> None:
    with pytest.raises(WeightsError, match="not a"):
        plain_network(saved(tmp_path / "bad.pth", content))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    chosen = Backbone(name="resnet50", weights="gone.pth", sha256="0" * 64)
    with pytest.raises(WeightsError, match=r"gone\.pth: weights cannot be read"):
        plain_network(chosen)


def test_each_backbone_has_its_own_normalisation() -> None:
    grey = torch.tensor([0.0, 127 / 255, 1.0]).reshape(1, 1, 1, 3).expand(1, 3, 1, 3)
    assert normalise_lite(grey)[0, 0, 0].tolist() == pytest.approx([-127 / 128, 0.0, 1.0])
    white = normalise_torchvision(grey)[0, :, 0, 2]
    assert white.tolist() == pytest.approx([2.2489, 2.4286, 2.64], abs=1e-4)


def test_imagenet_weights_come_through_torchvisions_own_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the place and name where torchvision keeps what it has fetched; weights drawn here stand in
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    torch.manual_seed(1)
    path = checkpoints / "resnet18-f37072fd.pth"
    torch.save(resnet18(weights=None).state_dict(), path)
    with pytest.raises(WeightsError, match="has been altered; remove it"):
        plain_network(Backbone(name="resnet18"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(TORCHVISION_DIGESTS, "resnet18", digest[:8])
    vectors = plain_network(Backbone(name="resnet18"))(torch.rand(1, 64, 64))
    assert vectors.shape == (1, 512)


def test_without_a_network_the_way_out_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", refused)
    with pytest.raises(WeightsError, match=r"resnet50-.*pth .* or use efficientnet_lite0"):
        plain_network(Backbone(name="resnet50"))
