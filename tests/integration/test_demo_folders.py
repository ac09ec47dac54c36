import csv
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.dataset import load_dataset
from client.micrographs import read_micrograph
from common.errors import ConfigurationError
from common.federation import load_federation
from simulation import demo
from simulation.demo import num_specimens, write_demo
from simulation.laboratories import FEDERATION, LABS, SIDE_UM, Laboratory

SMALL = tuple(replace(lab, num_specimens=2) for lab in LABS)
TWO = SMALL[1:3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "labs"
    assert write_demo(folder, labs=SMALL) == 12
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows_of(lab_folder: Path) -> list[dict[str, str]]:
    with (lab_folder / demo.TABLE).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_demo_has_its_size() -> None:
    assert num_specimens() == 178
    assert min(lab.num_specimens for lab in LABS) >= FEDERATION["privacy"]["min_specimens"]


def test_the_federation_file_is_valid(folder: Path) -> None:
    federation = load_federation(folder)

    assert set(federation.targets) == {"tensile_strength", "youngs_modulus"}


@pytest.mark.parametrize("lab", SMALL, ids=lambda lab: lab.name)
def test_a_lab_reads_its_folder_and_its_values_are_plausible(folder: Path, lab: Laboratory) -> None:
    federation = load_federation(folder, ["privacy.min_specimens=2"])
    dataset = load_dataset(folder / lab.name, federation)

    assert (dataset.name, len(dataset.specimens)) == (lab.name, 2)
    strength, modulus = dataset.targets.T
    assert ((strength > 20) & (strength < 90)).all()
    if "youngs_modulus" in lab.units:
        assert ((modulus > 3) & (modulus < 11)).all()
    else:
        assert np.isnan(modulus).all()
    for group in dataset.micrographs:
        (micrograph,) = group
        image = read_micrograph(micrograph.path, dataset.settings.data)
        assert image.shape == (lab.microscope.num_px, lab.microscope.num_px)
        assert micrograph.um_per_px is not None
        assert image.shape[0] * micrograph.um_per_px == pytest.approx(SIDE_UM)


def test_four_tiles_cover_each_section_exactly(folder: Path) -> None:
    imaging = load_federation(folder).imaging

    assert imaging.um_per_px is not None
    assert 2 * imaging.tile_px * imaging.um_per_px == pytest.approx(SIDE_UM)


def test_one_lab_writes_gpa_where_others_write_mpa(folder: Path) -> None:
    gpa = float(rows_of(folder / "prepreg_maker")[0]["ModulusOfElasticity"])
    mpa = float(rows_of(folder / "aircraft_maker")[0]["ModulusOfElasticity"])

    assert 3 < gpa < 11 < 3000 < mpa < 11000


def test_one_lab_did_not_measure_the_modulus(folder: Path) -> None:
    assert "ModulusOfElasticity" not in rows_of(folder / "institute")[0]


def test_files_depend_on_the_seed_and_not_on_the_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_demo(tmp_path / "two", labs=TWO, seed=7)
    write_demo(tmp_path / "other", labs=TWO, seed=8)
    monkeypatch.setattr(demo, "MAX_WORKERS", 1)
    write_demo(tmp_path / "one", labs=TWO, seed=7)

    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert digests(tmp_path / "one") != digests(tmp_path / "other")


def test_a_folder_that_is_no_demo_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")

    with pytest.raises(ConfigurationError, match="not a demo"):
        write_demo(tmp_path, labs=TWO)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_demo_is_replaced_and_what_lies_beside_the_labs_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "labs"
    write_demo(folder, labs=SMALL[:1])
    (folder / "notes.txt").write_text("mine")
    seen = []
    write_demo(folder, labs=TWO[:1], on_specimen=lambda: seen.append(1))

    assert len(seen) == 2
    assert (folder / "notes.txt").read_text() == "mine"
    assert [path.parent.name for path in folder.glob("*/lab.toml")] == [TWO[0].name]
    assert [path.name for path in tmp_path.iterdir()] == ["labs"]


def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_demo(tmp_path / "labs", labs=TWO, on_specimen=interrupt)
    assert list(tmp_path.iterdir()) == []
