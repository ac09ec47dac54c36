"""A lab's micrographs through a microscope of its own: files, features, and what stays refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.dataset import Dataset, load_dataset
from client.feature_store import FeatureStore
from client.micrographs import read_micrograph
from common.configuration import parse
from common.errors import ConfigurationError, LabDataError
from common.federation import Federation
from simulation.consortium import open_consortium
from simulation.scenarios.rephotographs import microscope_of, num_shifted, shift_events, shifted
from simulation.scenarios.scenario import Scenario
from simulation.scenarios.staging import open_staged, staged


def scenario(**table: Any) -> Scenario:
    return parse(Scenario, table, "[simulation]")


@pytest.fixture
def datasets(make_lab: Callable[[str], Any]) -> list[Dataset]:
    made = [make_lab(name) for name in ("aachen", "bremen")]
    return [load_dataset(lab.path, agreement(lab)) for lab in made]


def agreement(lab: Any) -> Federation:
    federation = lab.federation | {"backbone": {"name": "efficientnet_lite0"}}
    return Federation.model_validate(federation)


@pytest.fixture
def federation(make_lab: Callable[[str], Any]) -> Federation:
    return agreement(make_lab("any"))


def test_only_the_shifted_lab_has_new_pictures(
    datasets: list[Dataset], federation: Federation, tmp_path: Path
) -> None:
    table = scenario(feature_shift={"bremen": 1.0})
    cut = staged(datasets, federation, table)
    assert num_shifted(cut, table) == 24
    aachen, bremen = shifted(cut, federation, table, tmp_path)
    assert aachen.micrographs == cut[0].micrographs
    for (before,), (after,) in zip(cut[1].micrographs, bremen.micrographs, strict=True):
        assert (after.name, after.um_per_px) == (before.name, before.um_per_px)
        old, new = (
            read_micrograph(one.path, part.settings.data)
            for one, part in ((before, cut[1]), (after, bremen))
        )
        assert old.shape == new.shape
        # blurred or not, it shows the same thing, and differs
        assert np.abs(old - new).mean() > 0.01


def test_the_same_seed_writes_the_same_bytes(
    datasets: list[Dataset], federation: Federation, tmp_path: Path
) -> None:
    found = []
    for seed, name in ((1, "one"), (1, "two"), (2, "three")):
        (tmp_path / name).mkdir()
        table = scenario(feature_shift=0.5, seed=seed)
        parts = shifted(staged(datasets, federation, table), federation, table, tmp_path / name)
        found.append([image.sha256 for part in parts for of_one in part.micrographs
                      for image in of_one])  # fmt: skip
    assert found[0] == found[1]
    assert not set(found[0]) & set(found[2])


def test_without_a_shift_features_are_the_same_and_kept(
    datasets: list[Dataset], federation: Federation, tmp_path: Path
) -> None:
    store = FeatureStore(tmp_path / "store")
    plain = open_consortium(datasets, federation, store)
    table = scenario(dropout=0.1)
    same = open_staged(staged(datasets, federation, table), federation, store, table)
    for ours, theirs in zip(same.labs, plain.labs, strict=True):
        assert (ours.lab, ours.ids) == (theirs.lab, theirs.ids)
        np.testing.assert_array_equal(ours.features, theirs.features)
        np.testing.assert_array_equal(ours.groups, theirs.groups)

    table = scenario(partition="iid", labs=2, feature_shift={"lab-002": 1.0})
    cut = open_staged(staged(datasets, federation, table), federation, store, table)
    assert [lab.lab for lab in cut.labs] == ["lab-001", "lab-002"]
    features = {f"{lab.lab}/{id_}": row for lab in plain.labs
                for id_, row in zip(lab.ids, lab.features, strict=True)}  # fmt: skip
    one, two = cut.labs
    assert all((features[id_] == row).all() for id_, row in zip(one.ids, one.features, strict=True))
    assert not any(
        (features[id_] == row).all() for id_, row in zip(two.ids, two.features, strict=True)
    )


def test_a_folder_without_room_is_one_sentence(
    datasets: list[Dataset], federation: Federation, tmp_path: Path
) -> None:
    table = scenario(feature_shift=0.5)
    with pytest.raises(ConfigurationError, match=r"of aachen cannot be written .*set TMPDIR"):
        shifted(staged(datasets, federation, table), federation, table, tmp_path / "gone")


def test_specimens_that_share_a_micrograph_share_its_picture(
    datasets: list[Dataset], federation: Federation, tmp_path: Path
) -> None:
    one, two, *others = datasets[0].micrographs
    shared = replace(datasets[0], micrographs=(one, one, *others))
    table = scenario(feature_shift=0.5)
    part, _ = shifted(staged([shared, datasets[1]], federation, table), federation, table, tmp_path)
    assert part.micrographs[0] == part.micrographs[1] != two
    assert len(list(tmp_path.glob("*.png"))) == 23 + 24


def test_a_damaged_micrograph_leaves_its_specimen_out_as_ever(
    datasets: list[Dataset],
    federation: Federation,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = datasets[0].micrographs[3][0].path
    path.write_bytes(path.read_bytes()[:300])
    table = scenario(feature_shift=0.5)
    store = FeatureStore(tmp_path / "store")
    made = open_staged(staged(datasets, federation, table), federation, store, table)
    assert [len(lab) for lab in made.labs] == [23, 24]
    assert "S04.png: is a truncated or damaged PNG file" in caplog.text


def test_a_lab_of_which_too_little_is_left_is_named(
    datasets: list[Dataset], federation: Federation, tmp_path: Path
) -> None:
    for (image,) in datasets[1].micrographs:
        image.path.write_bytes(image.path.read_bytes()[:300])
    table = scenario(feature_shift={"bremen": 0.5})
    store = FeatureStore(tmp_path / "store")
    with pytest.raises(LabDataError, match="bremen: 0 specimens are left of those with a usable"):
        open_staged(staged(datasets, federation, table), federation, store, table)


def test_a_lab_keeps_its_microscope_whatever_the_strength(federation: Federation) -> None:
    weak, strong = (microscope_of("aachen", strength, 0) for strength in (0.1, 1.0))
    assert weak.blur_um == pytest.approx(0.1 * strong.blur_um)
    assert weak.ramp == pytest.approx(0.1 * strong.ramp)
    assert microscope_of("bremen", 1.0, 0) != strong
    table = scenario(feature_shift={"every": 0.1, "bremen": 0.0})
    (event,) = shift_events(["aachen", "bremen"], federation, table)
    assert event.lab == "aachen" and event.words.startswith("brightness 0.")
