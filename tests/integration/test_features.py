"""Law 7: features do not depend on batch size, tile order or the folder's other specimens."""

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import client.pipeline
from benchmarks.features import backbones
from client.backbones import Network, plain_network
from client.dataset import load_dataset
from client.engine_choice import EngineChoice, cpu_has_bfloat16, has_gpu
from client.engines import Engine, load_engine
from client.feature_store import FeatureStore
from client.features import extract
from client.pooling import pool_tiles
from client.specimens import Specimens
from common.errors import LabDataError
from common.federation import Backbone, Federation, Imaging


@pytest.fixture
def lab(lab: Any) -> Any:
    """The good lab folder, under a backbone whose weights are at hand, with four tiles each."""
    lab.federation["backbone"] = {"name": "efficientnet_lite0"}
    lab.write()
    return lab


LITE0 = Backbone(name="efficientnet_lite0")


needs_bfloat16 = pytest.mark.skipif(not cpu_has_bfloat16(), reason="this processor has no bfloat16")
needs_gpu = pytest.mark.skipif(not has_gpu(), reason="torch sees no GPU")
needs_gpu_with_bfloat16 = pytest.mark.skipif(
    not (has_gpu() and torch.cuda.get_device_capability() >= (8, 0)),
    reason="torch sees no GPU with bfloat16",
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """An engine with a backbone, and how near its vectors are to those of the plain network."""

    engine: Engine
    plain: Network
    rtol: float
    atol: float


@pytest.fixture(
    params=[
        ("efficientnet_lite0", "torch", "cpu", "float32"),
        ("efficientnet_lite0", "openvino", "cpu", "float32"),
        ("resnet18", "torch", "cpu", "float32"),
        ("resnet18", "openvino", "cpu", "float32"),
        pytest.param(("resnet18", "torch", "cpu", "bfloat16"), marks=needs_bfloat16),
        pytest.param(("resnet18", "openvino", "cpu", "bfloat16"), marks=needs_bfloat16),
        pytest.param(("efficientnet_lite0", "torch", "cuda", "float32"), marks=needs_gpu),
        pytest.param(("resnet18", "torch", "cuda", "bfloat16"), marks=needs_gpu_with_bfloat16),
    ],
    ids="-".join,
)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    name, engine, device, precision = request.param
    backbone = LITE0
    if name != "efficientnet_lite0":
        (backbone,) = backbones(tmp_path, [name])
    loaded = load_engine(
        backbone, 32, EngineChoice(engine=engine, device=device, precision=precision)
    )
    # bfloat16 has eight bits, and rounds at every layer
    near = (0.05, 0.05) if precision == "bfloat16" else (1e-4, 2e-5)
    return Case(engine=loaded, plain=plain_network(backbone), rtol=near[0], atol=near[1])


def features_of(lab: Any, cache: Path, on_micrograph: Any = lambda: None) -> Specimens:
    federation = Federation.model_validate(lab.federation)
    return extract(
        load_dataset(lab.path, federation), federation, FeatureStore(cache), on_micrograph
    )


def test_one_vector_a_specimen_mean_then_deviation(lab: Any, tmp_path: Path) -> None:
    specimens = features_of(lab, tmp_path / "cache")
    assert specimens.features.shape == (24, 2560)
    assert specimens.features.dtype == np.float32
    assert (specimens.features[:, 1280:] >= 0).all() and specimens.features[:, 1280:].any()
    assert specimens.ids[:2] == ("S01", "S02")


def test_other_specimens_do_not_matter(lab: Any, tmp_path: Path) -> None:
    everything = features_of(lab, tmp_path / "one")
    del lab.rows[3:20]
    lab.federation["privacy"]["min_specimens"] = 5
    lab.write()
    some = features_of(lab, tmp_path / "two")
    kept = [everything.ids.index(id_) for id_ in some.ids]
    assert len(some) == 7
    np.testing.assert_array_equal(some.features, everything.features[kept])


def test_batch_size_and_tile_order_do_not_matter(case: Case) -> None:
    tiles = np.random.default_rng(0).random((19, 32, 32), dtype=np.float32)
    whole = case.engine.vectors(tiles)
    np.testing.assert_array_equal(case.engine.vectors(tiles), whole)
    for size in (1, 8):
        parts = [case.engine.vectors(part) for part in np.split(tiles, range(size, 19, size))]
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=case.rtol, atol=case.atol)
    order = np.random.default_rng(0).permutation(19)
    imaging = Imaging(scale="pixels")
    np.testing.assert_allclose(
        pool_tiles(whole[order], imaging), pool_tiles(whole, imaging), rtol=1e-12
    )


def test_every_engine_gives_the_plain_networks_vectors(case: Case) -> None:
    tiles = np.random.default_rng(1).random((11, 32, 32), dtype=np.float32)
    with torch.inference_mode():
        plain = case.plain(torch.from_numpy(tiles)).numpy()
    assert np.abs(plain).max() > 1
    np.testing.assert_allclose(case.engine.vectors(tiles), plain, rtol=case.rtol, atol=case.atol)


def test_the_number_of_threads_does_not_matter(
    lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = features_of(lab, tmp_path / "one")
    monkeypatch.setattr(client.pipeline, "usable_cores", lambda: 1)
    alone = features_of(lab, tmp_path / "two")
    np.testing.assert_array_equal(many.features, alone.features)


def test_a_second_call_reads_the_cache_and_gives_the_same_bits(
    lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[None] = []
    first = features_of(lab, tmp_path / "cache", lambda: seen.append(None))
    assert len(seen) == 24

    def never(*_: object) -> None:
        raise AssertionError("a cached micrograph was decoded again")

    monkeypatch.setattr(client.pipeline, "_make", never)
    second = features_of(lab, tmp_path / "cache")
    np.testing.assert_array_equal(first.features, second.features)


def num_kept(cache: Path) -> int:
    return FeatureStore(cache).summary().num_vectors


def test_a_changed_image_is_one_miss(lab: Any, tmp_path: Path) -> None:
    features_of(lab, tmp_path / "cache")
    assert num_kept(tmp_path / "cache") == 24
    lab.write_image("S05.png", np.full((48, 64), 90, np.uint8) + np.eye(48, 64, dtype=np.uint8))
    features_of(lab, tmp_path / "cache")
    assert num_kept(tmp_path / "cache") == 25


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("imaging", "max_tiles", 30),
        ("imaging", "tile_px", 40),
        ("imaging", "scale", "fit"),
        ("backbone", "engine", "any"),
    ],
)
def test_another_agreement_is_a_miss(
    lab: Any, tmp_path: Path, section: str, key: str, value: Any
) -> None:
    lab.federation["imaging"]["tile_px"] = 36
    features_of(lab, tmp_path / "cache")
    lab.federation[section][key] = value
    features_of(lab, tmp_path / "cache")
    assert num_kept(tmp_path / "cache") == 48


@pytest.mark.parametrize(
    ("library", "num_made"),
    [("torch", 24), ("opencv-python", 48), ("scikit-image", 24), ("rich", 0), ("openvino", 0)],
)
def test_another_version_of_what_computes_is_a_miss(
    lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, num_made: int
) -> None:
    lab.federation["descriptors"] = {"names": ("noise",)}
    lab.write()
    features_of(lab, tmp_path / "cache")
    assert num_kept(tmp_path / "cache") == 48
    installed = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: "99.0" if name == library else installed(name)
    )
    features_of(lab, tmp_path / "cache")
    assert num_kept(tmp_path / "cache") == 48 + num_made


def test_an_image_that_breaks_after_the_check_costs_its_specimen(
    lab: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    federation = Federation.model_validate(lab.federation)
    dataset = load_dataset(lab.path, federation)
    path = lab.images / "S07.png"
    path.write_bytes(path.read_bytes()[:200])
    specimens = extract(dataset, federation, FeatureStore(tmp_path / "cache"))
    assert len(specimens) == 23
    assert specimens.ids[5:7] == ("S06", "S08")
    assert [record.message for record in caplog.records] == [
        "S07.png: is a truncated or damaged PNG file; copy or export the image again; "
        "its specimen is left out"
    ]


def test_every_micrograph_is_counted_also_behind_one_that_breaks(lab: Any, tmp_path: Path) -> None:
    lab.settings["data"]["image"] = "{id}*.png"
    for name in ("S07-b.png", "S07-c.png", "S08-b.png"):
        lab.write_image(name, np.arange(48 * 64, dtype=np.uint16).reshape(48, 64))
    lab.write()
    federation = Federation.model_validate(lab.federation)
    dataset = load_dataset(lab.path, federation)
    (lab.images / dataset.micrographs[6][0].name).write_bytes(b"")
    seen: list[None] = []
    extract(dataset, federation, FeatureStore(tmp_path / "cache"), lambda: seen.append(None))
    assert len(seen) == 27


def test_too_few_specimens_left_is_an_error(lab: Any, tmp_path: Path) -> None:
    lab.federation["privacy"]["min_specimens"] = 24
    federation = Federation.model_validate(lab.federation)
    dataset = load_dataset(lab.path, federation)
    (lab.images / "S07.png").write_bytes(b"")
    with pytest.raises(LabDataError, match=r"1 specimens are left out .* the 23 left are fewer"):
        extract(dataset, federation, FeatureStore(tmp_path / "cache"))


def test_covariates_follow_the_deep_features(lab: Any, tmp_path: Path) -> None:
    lab.federation["covariates"] = {"cure_temperature": {"unit": "degC", "range": [0, 400]}}
    lab.settings["covariates"] = {"cure_temperature": {"column": "cure", "unit": "K"}}
    lab.add_column("cure", [f"{393.15 + row}" for row in range(24)])
    lab.write()
    specimens = features_of(lab, tmp_path / "cache")
    assert specimens.features.shape == (24, 2561)
    np.testing.assert_allclose(specimens.features[:, -1], 120 + np.arange(24), rtol=1e-6)
