"""A lab's folder as a data set: joins, units, groups, names, counts."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.dataset import load_dataset
from client.findings import Finding, Level, shortened
from client.reading.checksums import sha256_of
from client.reading.image_pattern import ImagePattern, NameIndex
from common.errors import ConfigurationError, LabDataError
from common.federation import Federation

# the LabFolder of tests/conftest.py, which has no name that could be imported
Lab = Any


def federation_of(lab: Lab) -> Federation:
    return Federation.model_validate(lab.federation)


def load(lab: Lab) -> Any:
    lab.write()
    return load_dataset(lab.path, federation_of(lab))


def test_what_a_data_set_holds(lab: Lab) -> None:
    dataset = load(lab)
    assert dataset.name == "lab"
    assert dataset.folder == lab.path
    assert dataset.specimens == tuple(f"S{i:02}" for i in range(1, 25))
    assert dataset.targets.shape == (24, 2) and dataset.covariates.shape == (24, 0)
    assert dataset.groups.dtype == np.int64 and len(set(dataset.groups)) == 24
    assert dataset.partition is None
    micrograph = dataset.micrographs[3][0]
    assert micrograph.path == lab.images / "S04.png"
    assert micrograph.sha256 == sha256_of(lab.images / "S04.png")
    assert micrograph.um_per_px is None


def test_units_and_order_are_the_federations(lab: Lab) -> None:
    lab.federation["targets"] = {
        "modulus": {"unit": "MPa", "range": [0, 400_000]},
        "hardness": {"unit": "HV", "range": [0, 900]},
        "strength": {"unit": "Pa", "range": [0, 3e9]},
    }
    lab.federation["covariates"] = {"cure": {"unit": "degC", "range": [0, 400]}}
    lab.settings["covariates"] = {"cure": {"column": "cure", "unit": "degF"}}
    lab.settings["name"] = "aachen"
    lab.add_column("cure (°F)", ["212"] * 24)
    dataset = load(lab)
    assert dataset.name == "aachen"
    np.testing.assert_allclose(dataset.targets[0], [70_500, np.nan, 503e6])
    np.testing.assert_allclose(dataset.covariates, 100.0)


def test_several_micrographs_and_rows_of_one_specimen(lab: Lab) -> None:
    lab.settings["data"] |= {"image": "file", "um_per_px": "scale"}
    lab.federation["imaging"] = {"scale": "physical", "um_per_px": 1.0, "tile_px": 32}
    lab.add_column("file", [f"S{i:02}.png" for i in range(1, 25)])
    lab.add_column("scale", ["1.0"] * 24)
    lab.rows[5] = ["S05", "515", "72.5", "S06.png", "2.0"]
    dataset = load(lab)
    assert len(dataset.specimens) == 23
    assert [(m.name, m.um_per_px) for m in dataset.micrographs[4]] == [
        ("S05.png", 1.0),
        ("S06.png", 2.0),
    ]


def test_two_scales_of_one_micrograph_are_refused(lab: Lab) -> None:
    lab.settings["data"]["um_per_px"] = "scale"
    lab.add_column("scale", ["1.0"] * 24)
    lab.rows.append(["S01", "503", "70.5", "2.0"])
    with pytest.raises(LabDataError, match=r"images/S01.png has 2 µm per px here and 1 in row 2"):
        load(lab)


def test_the_order_of_rows_and_files_does_not_matter(lab: Lab) -> None:
    dataset = load(lab)
    lab.rows.reverse()
    other = load(lab)
    assert other.specimens == dataset.specimens[::-1]
    assert other.micrographs == dataset.micrographs[::-1]
    np.testing.assert_array_equal(other.targets, dataset.targets[::-1])


def test_split_groups_and_equal_images_are_joined_by_a_chain(lab: Lab) -> None:
    lab.settings["data"]["split_group"] = "batch"
    lab.add_column("batch", ["a", "a", "b", "b", *(f"c{i}" for i in range(20))])
    (lab.images / "S03.png").write_bytes((lab.images / "S02.png").read_bytes())
    groups = load(lab).groups
    assert len(set(groups[:4])) == 1
    assert len(set(groups)) == 21
    assert sorted(set(groups)) == list(range(21))


def test_specimens_without_a_batch_are_split_by_themselves(lab: Lab) -> None:
    lab.settings["data"]["split_group"] = "batch"
    lab.add_column("batch", ["a", "a", *[""] * 22])
    lab.write()
    dataset, findings = lab.check()
    assert len(set(dataset.groups)) == 23
    assert any("22 specimen(s) have no value here" in finding.found for finding in findings)


def test_a_pooled_set(lab: Lab) -> None:
    lab.federation["privacy"]["min_specimens"] = 12
    lab.settings["partition"] = {"column": "site"}
    lab.add_column("site", ["A", "B"] * 12)
    assert load(lab).partition == ("A", "B") * 12


def test_a_specimen_in_two_virtual_labs_is_refused(lab: Lab) -> None:
    lab.settings["partition"] = {"column": "site"}
    lab.add_column("site", ["A"] * 24)
    lab.rows.append([*lab.rows[0][:3], "B"])
    with pytest.raises(LabDataError, match="'S01' has 'B' here and 'A' in row 2"):
        load(lab)


def test_a_lab_that_measures_no_modulus(lab: Lab) -> None:
    del lab.settings["targets"]["modulus"]
    assert np.isnan(load(lab).targets[:, 1]).all()


def test_specimens_without_any_target_do_not_count(lab: Lab) -> None:
    lab.federation["privacy"]["min_specimens"] = 24
    lab.rows[0][1:3] = ["", ""]
    with pytest.raises(LabDataError, match=r"23 specimen\(s\) with a target, too few"):
        load(lab)


def test_specimens_without_any_target_are_left_out(lab: Lab) -> None:
    lab.settings["partition"] = {"column": "site"}
    lab.federation["privacy"]["min_specimens"] = 11
    lab.add_column("site", ["A", "B"] * 12)
    lab.rows[0][1:3] = lab.rows[5][1:3] = ["", ""]
    lab.rows[7][1] = ""
    lab.write()
    (fix,) = lab.fixes()
    assert fix.found == "2 specimen(s) without a value of any target are left out: S01, S06"
    dataset, findings = lab.check()
    usable = "22 of 24 specimens can be used: they have a micrograph and a value of a target"
    assert usable in [finding.found for finding in findings]
    specimens = tuple(f"S{i:02}" for i in range(1, 25) if i not in (1, 6))
    assert dataset.specimens == specimens
    assert [group[0].name for group in dataset.micrographs] == [f"{s}.png" for s in specimens]
    assert dataset.targets.shape == (22, 2) and np.isfinite(dataset.targets).any(axis=1).all()
    assert dataset.covariates.shape == (22, 0)
    assert dataset.groups.tolist() == list(range(22))
    assert dataset.partition == ("B", "A", "B", "A", *("A", "B") * 9)


@pytest.mark.parametrize("is_pooled", [True, False])
def test_a_lab_without_any_target_is_refused(lab: Lab, is_pooled: bool) -> None:
    lab.federation["privacy"]["min_specimens"] = 2
    if is_pooled:
        lab.settings["partition"] = {"column": "site"}
    lab.add_column("site", ["lab" if is_pooled else ""] * 12 + ["B"] * 12)
    for row in lab.rows[: 12 if is_pooled else 24]:
        row[1:3] = ["", ""]
    with pytest.raises(LabDataError, match=r"'lab' has 0 specimen\(s\) with a target"):
        load(lab)


@pytest.mark.parametrize("other", ["lab a", "LabA", "\uff2cab A"])
def test_virtual_labs_that_look_alike_are_refused(lab: Lab, other: str) -> None:
    lab.settings["partition"] = {"column": "site"}
    lab.federation["privacy"]["min_specimens"] = 2
    lab.add_column("site", ["Lab A", "Lab B", other, "Lab A", "Lab B", other] * 4)
    lab.write()
    (stop,) = lab.stops()
    assert (stop.row, stop.column) == (4, "site")
    assert "'Lab A' in row 2 only by case, blanks or Unicode form" in stop.found


def test_a_refusal_lists_the_first_reasons(lab: Lab) -> None:
    for row in lab.rows:
        row[1] = "x"
    with pytest.raises(LabDataError) as refusal:
        load(lab)
    assert str(refusal.value).count("\n") == 6
    assert "and 19 more; see all with: crossply lab check" in str(refusal.value)


def test_a_folder_may_be_named_in_any_way(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    (lab.path.parent / "link").symlink_to(lab.path)
    monkeypatch.chdir(lab.images)
    for name, shown in (("..", "lab"), ("../../lab/", "lab"), ("../../link", "link")):
        dataset = load_dataset(Path(name), federation_of(lab))
        assert dataset.name == shown
        assert dataset.micrographs[0][0].path.is_absolute()


def test_loading_does_not_decode(lab: Lab) -> None:
    path = lab.images / "S03.png"
    path.write_bytes(path.read_bytes()[:60])
    assert len(load(lab).specimens) == 24
    assert len(lab.stops()) == 1


def test_a_wrong_lab_file_is_a_configuration_error(lab: Lab) -> None:
    lab.settings["data"]["tabel"] = "x"
    with pytest.raises(ConfigurationError, match="closest known key is 'table'"):
        load(lab)


@pytest.mark.parametrize(
    ("key", "name", "message"),
    [
        ("images", "pictures", "'pictures' is not a folder"),
        ("images", "..", "leads out of the data folder"),
        ("image", "*.png", "there is no such column"),
        ("image", "{id*.png", "a brace without its partner"),
        ("image", "{ID}.png", "there is no such column"),
        ("image", "{id}[z-a].png", "z-a in image runs backwards; write a-z in lab.toml"),
        ("specimen", "ID", "there is no such column"),
        ("split_group", "batch", "there is no such column"),
        ("um_per_px", "scale", "there is no such column"),
        ("checksums", "SHA256SUMS", "no such file"),
    ],
)
def test_a_name_in_lab_toml_that_leads_nowhere(lab: Lab, key: str, name: str, message: str) -> None:
    lab.settings["data"][key] = name
    with pytest.raises(LabDataError, match=message):
        load(lab)


NAMES = ["S1.png", "S10.png", "S1_b.png", "S1a.png", "S2/1.png", "S2/2.png", "x-S1.png", "a[1].png"]


@pytest.mark.parametrize(
    ("pattern", "value", "expected"),
    [
        ("{id}.png", "S1", ["S1.png"]),
        ("{id}*.png", "S1", ["S1.png", "S1_b.png", "S1a.png"]),
        ("{id}?.png", "S1", ["S1a.png"]),
        ("{id}[0-9].png", "S1", ["S10.png"]),
        ("{id}[!0-9].png", "S1", ["S1a.png"]),
        ("{id}**.png", "S1", ["S1.png", "S1_b.png", "S1a.png"]),
        ("{id}[[a].png", "S1", ["S1a.png"]),
        ("{id}[^a&&||~~\\\\].png", "S1", ["S1a.png"]),
        ("{id}[---a].png", "S1", ["S1a.png"]),
        ("{id}[!]*", "S1", []),
        ("{id}[!a]*.png", "S2", []),
        ("{id}/*.png", "S2", ["S2/1.png", "S2/2.png"]),
        ("*{id}.png", "S1", ["S1.png", "x-S1.png"]),
        ("*{id}*", "1", ["S1.png", "S1_b.png", "S1a.png", "a[1].png", "x-S1.png"]),
        ("*{id}.png", "0", []),
        ("{id}*", "a[1]", ["a[1].png"]),
        ("{id}*", "a?1", []),
        ("{id}*", "*", []),
        ("{id}*", "../S1", []),
    ],
)
def test_patterns(pattern: str, value: str, expected: list[str]) -> None:
    assert ImagePattern(pattern).matches({"id": value}, NameIndex(NAMES)) == expected


@given(
    value=st.text("ab1[]*?.", min_size=1, max_size=4),
    names=st.lists(st.text("ab1[]*?.", min_size=1, max_size=6), unique=True),
)
def test_a_value_is_taken_literally(value: str, names: list[str]) -> None:
    index = NameIndex(names)
    found = ImagePattern("{id}*").matches({"id": value}, index)
    expected = [
        name
        for name in sorted(names)
        if name.startswith(value) and not (value[-1].isdigit() and name[len(value) :][:1].isdigit())
    ]
    assert found == expected
    assert ImagePattern("{id}").matches({"id": value}, index) == [n for n in names if n == value]


@pytest.mark.parametrize("pattern", ["{id}*.png", "{site}_{id}_*.png", "*_{id}_a.png"])
def test_ten_thousand_names_are_joined_fast(pattern: str) -> None:
    names = NameIndex(
        [f"A_S{i}_a.png" for i in range(10_000)] + [f"S{i}.png" for i in range(10_000)]
    )
    read = ImagePattern(pattern)
    start = time.perf_counter()
    found = [read.matches({"id": f"S{i}", "site": "A"}, names) for i in range(10_000)]
    assert all(len(matches) == 1 for matches in found)
    assert time.perf_counter() - start < 8


def test_findings_of_one_kind_are_shortened() -> None:
    findings = [
        Finding(level=level, file="t.csv", found=f"{row}", action="correct it", row=row)
        for row in range(30)
        for level in (Level.STOP, Level.FIX)
    ]
    found = [finding.found for finding in shortened(findings)]
    assert len(found) == 11 + 6
    assert found[10] == "and 20 more like this" and found[-1] == "and 25 more like this"


@pytest.mark.parametrize("name", ["mechanical_mnist_ue", "lpbf_surface_ra"])
def test_public_data_sets_pass(shared_data: Path, name: str) -> None:
    from common.federation import load_federation

    folder = shared_data / name
    start = time.perf_counter()
    dataset = load_dataset(folder, load_federation(folder))
    assert time.perf_counter() - start < 10
    assert len(dataset.specimens) in (3000, 57)
    assert dataset.partition is not None and np.isfinite(dataset.targets).all()


def test_steel_with_two_magnifications_of_a_specimen(
    shared_data: Path, make_lab: Callable[[str], Lab]
) -> None:
    source = shared_data / "literature_steel_hardness"
    lab = make_lab("steel")
    lab.table.write_bytes((source / "properties.csv").read_bytes())
    for path in (source / "images").iterdir():
        (lab.images / path.name).write_bytes(path.read_bytes())
    for i in range(1, 25):
        (lab.images / f"S{i:02}.png").unlink()
    lab.settings = {
        "data": {
            "table": "tests.csv",
            "images": ".",
            "specimen": "specimen_id",
            "image": "image",
            "split_group": "condition",
        },
        "targets": {"hardness": {"column": "hardness_HV", "unit": "HV"}},
    }
    lab.federation |= {
        "targets": {"hardness": {"unit": "HV", "range": [50, 1000]}},
        "imaging": {"scale": "fit"},
        "privacy": {"min_specimens": 10},
    }
    lab.write_toml()
    dataset, findings = lab.check()
    assert dataset is not None, [finding.sentence() for finding in findings]
    assert [len(group) for group in dataset.micrographs] == [2] * 9 + [1]
    assert dataset.targets[0].tolist() == [201.25]
    assert len(set(dataset.groups.tolist())) == 4


@pytest.mark.parametrize(
    ("unit", "factor", "hint"), [("GPa", 1e3, "MPa"), ("MPa", 1e-3, "GPa"), ("ksi", 1e3, "psi")]
)
def test_a_factor_of_a_thousand_is_the_first_guess(
    lab: Any, unit: str, factor: float, hint: str
) -> None:
    in_unit = {"GPa": 1.0, "MPa": 1e3, "ksi": 145.0377377}[unit]
    lab.federation["targets"]["modulus"]["range"] = [0, 50]
    for row in lab.rows:
        row[2] = f"{float(row[2]) / 10 * in_unit * factor:.6g}"
    lab.settings["targets"]["modulus"]["unit"] = unit
    lab.write()
    (stop,) = lab.stops()
    assert f'Then write unit = "{hint}"' in stop.action
