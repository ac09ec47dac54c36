import copy
import hashlib
import socket
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import load_file
from torchvision.models import resnet18

from client.backbones import (
    fast_network,
    fold_norms,
    normalise_lite,
    normalise_torchvision,
    plain_network,
)
from client.efficientnet_lite import LITE0_NORMS, EfficientNetLite0
from client.reference import draw_reference_set, reference_tiles
from client.weights import SILENCE_S
from client.weights_identity import TORCHVISION_DIGESTS
from common.errors import WeightsError
from common.federation import Backbone


def saved(path: Path, state: object) -> Backbone:
    torch.save(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Backbone(name="resnet18", weights=str(path), sha256=digest)


def test_the_packaged_weights_give_the_vectors_of_timms_network() -> None:
    """The same weights in the architecture of another library, on three reference micrographs.

    With timm 1.0.31 and torch 2.15.0 on one machine, `vectors` and ours are the same bits::

        network = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
        weights = {k: v for k, v in packaged_lite0().items() if not k.startswith("_fc")}
        network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
        vectors = network(normalise_lite(tiles[:, None]).expand(-1, 3, -1, -1))
    """
    expected = load_file(Path(__file__).with_name("timm_lite0.safetensors"))["vectors"]
    tiles = torch.from_numpy(reference_tiles(draw_reference_set()[0], 224)[[0, 11, 23]])
    with torch.inference_mode():
        found = plain_network(Backbone(name="efficientnet_lite0"))(tiles)
    assert expected.shape == (3, 1280) and expected.std() > 0.1
    error = torch.linalg.norm(found - expected, dim=1) / torch.linalg.norm(expected, dim=1)
    # kernels for SSE4.1, AVX2 and AVX-512 differ among themselves by 1.2e-6 at most
    assert float(error.max()) < 2e-6


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


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"layer1.0.conv1.weight": None}, r"layer1\.0\.conv1\.weight has shape none"),
        (
            {"layer9.weight": torch.zeros(3)},
            r"layer9\.weight has shape \(3,\), the network has none",
        ),
        ({"bn1.bias": torch.zeros(65)}, r"bn1\.bias has shape \(65,\), the network has \(64,\)"),
    ],
)
def test_weights_of_another_network_are_refused_by_key(
    change: dict[str, torch.Tensor | None], refused: str, tmp_path: Path
) -> None:
    changed = dict(resnet18(weights=None).state_dict()) | change
    state = {key: value for key, value in changed.items() if value is not None}
    with pytest.raises(WeightsError, match=rf"do not fit resnet18: {refused}"):
        plain_network(saved(tmp_path / "other.pth", state))


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


def test_imagenet_weights_are_compared_before_they_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the place and name where torchvision keeps what it has fetched; weights drawn here stand in
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    torch.manual_seed(1)
    path = checkpoints / "resnet18-f37072fd.pth"
    torch.save(resnet18(weights=None).state_dict(), path)
    with pytest.raises(WeightsError, match="is damaged or has been altered; remove it"):
        plain_network(Backbone(name="resnet18"))
    path.write_bytes(b"half of a file")
    with pytest.raises(WeightsError, match="is damaged or has been altered; remove it"):
        plain_network(Backbone(name="resnet18"))
    torch.save(resnet18(weights=None).state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(TORCHVISION_DIGESTS, "resnet18", digest[:8])
    vectors = plain_network(Backbone(name="resnet18"))(torch.rand(1, 64, 64))
    assert vectors.shape == (1, 512)


def test_what_lies_in_the_place_of_fetched_weights_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    torch.save(_Dangerous(), path)
    with pytest.raises(WeightsError, match="has been altered"):
        plain_network(Backbone(name="resnet18"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(TORCHVISION_DIGESTS, "resnet18", digest[:8])
    with pytest.raises(WeightsError, match="not a file of torch weights"):
        plain_network(Backbone(name="resnet18"))
    assert capsys.readouterr().out == ""


def test_without_a_network_the_way_out_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        assert socket.getdefaulttimeout() == SILENCE_S
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", refused)
    with pytest.raises(WeightsError, match=r"resnet50-.*pth .* or use efficientnet_lite0"):
        plain_network(Backbone(name="resnet50"))
    assert socket.getdefaulttimeout() is None
