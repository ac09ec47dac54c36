"""Law 7: features do not depend on batch size, tile order or the folder's other specimens."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import client.features
from client.backbones import load_backbone
from client.dataset import load_dataset
from client.feature_cache import FeatureCache
from client.features import extract, pool_tiles
from client.specimens import Specimens
from common.errors import LabDataError
from common.federation import Federation


@pytest.fixture
def lab(lab: Any) -> Any:
    """The good lab folder, under a backbone whose weights are at hand, with four tiles each."""
    lab.federation["backbone"] = {"name": "efficientnet_lite0"}
    lab.write()
    return lab


def features_of(lab: Any, cache: Path, on_micrograph: Any = lambda: None) -> Specimens:
    federation = Federation.model_validate(lab.federation)
    return extract(
        load_dataset(lab.path, federation), federation, FeatureCache(cache), on_micrograph
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


def test_batch_size_and_tile_order_do_not_matter(lab: Any, tmp_path: Path) -> None:
    federation = Federation.model_validate(lab.federation)
    backbone = load_backbone(federation.backbone)
    tiles = torch.rand((9, 32, 32), generator=torch.Generator().manual_seed(0))
    whole = backbone.vectors(tiles).numpy()
    single = np.concatenate([backbone.vectors(tile[None]).numpy() for tile in tiles])
    np.testing.assert_allclose(single, whole, rtol=1e-4, atol=1e-5)
    order = np.random.default_rng(0).permutation(9)
    np.testing.assert_allclose(
        pool_tiles(whole[order], federation.imaging), pool_tiles(whole, federation.imaging), 1e-12
    )


def test_the_number_of_threads_does_not_matter(
    lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = features_of(lab, tmp_path / "one")
    monkeypatch.setattr("os.cpu_count", lambda: 1)
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

    monkeypatch.setattr(client.features, "read_micrograph", never)
    second = features_of(lab, tmp_path / "cache")
    np.testing.assert_array_equal(first.features, second.features)


def entries(cache: Path) -> set[Path]:
    return set(cache.rglob("*.features"))


def test_a_changed_image_is_one_miss(lab: Any, tmp_path: Path) -> None:
    features_of(lab, tmp_path / "cache")
    before = entries(tmp_path / "cache")
    lab.write_image("S05.png", np.full((48, 64), 90, np.uint8) + np.eye(48, 64, dtype=np.uint8))
    features_of(lab, tmp_path / "cache")
    assert len(before) == 24
    assert len(entries(tmp_path / "cache") - before) == 1


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("imaging", "max_tiles", 30), ("imaging", "tile_px", 40), ("imaging", "scale", "fit")],
)
def test_another_agreement_is_a_miss(
    lab: Any, tmp_path: Path, section: str, key: str, value: Any
) -> None:
    lab.federation[section]["tile_px"] = 36
    features_of(lab, tmp_path / "cache")
    before = entries(tmp_path / "cache")
    lab.federation[section][key] = value
    features_of(lab, tmp_path / "cache")
    assert len(entries(tmp_path / "cache") - before) == 24


@pytest.mark.parametrize("damage", ["flipped bit", "cut"])
def test_a_damaged_entry_is_made_again_with_a_warning(
    lab: Any, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = features_of(lab, tmp_path / "cache")
    entry = sorted(entries(tmp_path / "cache"))[0]
    content = bytearray(entry.read_bytes())
    content[-100] ^= 4
    entry.write_bytes(content if damage == "flipped bit" else content[:-50])
    with caplog.at_level(logging.WARNING):
        second = features_of(lab, tmp_path / "cache")
    np.testing.assert_array_equal(first.features, second.features)
    assert f"cached features {entry.name} are damaged" in caplog.text
    caplog.clear()
    features_of(lab, tmp_path / "cache")
    assert caplog.text == ""


def test_a_cache_that_cannot_be_written_costs_only_time(
    lab: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    specimens = features_of(lab, tmp_path / "cache")
    assert len(specimens) == 24
    assert caplog.text.count("features are not cached") == 1


def test_an_image_that_breaks_after_the_check_is_named(lab: Any, tmp_path: Path) -> None:
    federation = Federation.model_validate(lab.federation)
    dataset = load_dataset(lab.path, federation)
    path = lab.images / "S07.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(LabDataError, match=r"^S07\.png: "):
        extract(dataset, federation, FeatureCache(tmp_path / "cache"))


def test_covariates_follow_the_deep_features(lab: Any, tmp_path: Path) -> None:
    lab.federation["covariates"] = {"cure_temperature": {"unit": "degC", "range": [0, 400]}}
    lab.settings["covariates"] = {"cure_temperature": {"column": "cure", "unit": "K"}}
    lab.add_column("cure", [f"{393.15 + row}" for row in range(24)])
    lab.write()
    specimens = features_of(lab, tmp_path / "cache")
    assert specimens.features.shape == (24, 2561)
    np.testing.assert_allclose(specimens.features[:, -1], 120 + np.arange(24), rtol=1e-6)
