"""Virtual labs written for another process: what is opened is what was written."""

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from client.lab import Lab, split_lab
from client.specimens import Specimens
from common.federation import Federation
from simulation.ray.lab_files import open_labs, write_labs

FEDERATION = Federation.model_validate(
    {
        "name": "test",
        "targets": {
            "strength": {"unit": "MPa", "range": [0, 200]},
            "modulus": {"unit": "GPa", "range": [0, 9]},
        },
        "imaging": {"scale": "fit"},
        "backbone": {"name": "resnet18"},
        "head": {"hidden": [4]},
        "privacy": {"min_specimens": 3},
    }
)


def lab(name: str, size: int) -> Lab:
    generator = np.random.default_rng(size)
    targets = generator.uniform(1, 9, (size, 2))
    targets[0, 1] = np.nan
    made = Specimens(
        lab=name,
        ids=tuple(f"{name}-{row}" for row in range(size)),
        features=generator.standard_normal((size, 512)).astype(np.float32),
        targets=targets,
        groups=np.arange(size) // 2,
    )
    return split_lab(made, FEDERATION, np.arange(size) >= size - 2)


def test_labs_are_opened_as_they_were(tmp_path: Path) -> None:
    labs = [lab("aachen", 7), replace(lab("α,β\n", 4), min_specimens=4), lab("celle", 2)]
    write_labs(labs, tmp_path)
    opened = open_labs(tmp_path)
    assert [one.name for one in opened][:2] == ["aachen", "α,β\n"]
    for before, after in zip(labs, opened, strict=True):
        assert after.federation.fingerprint() == before.federation.fingerprint()
        plain = {field.name for field in fields(Lab)} - {"federation", "training", "held_out"}
        assert {name: getattr(after, name) for name in plain} == {
            name: getattr(before, name) for name in plain
        }
        for part in ("training", "held_out"):
            one, other = getattr(before, part), getattr(after, part)
            assert one.ids == other.ids
            for name in ("features", "targets", "groups"):
                written, read = getattr(one, name), getattr(other, name)
                assert written.dtype == read.dtype and written.shape == read.shape
                np.testing.assert_array_equal(read, written)


def test_files_hold_plain_arrays_that_processes_share(tmp_path: Path) -> None:
    write_labs([lab("aachen", 7), lab("bremen", 5)], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "features.npy", "groups.npy", "labs.json", "targets.npy"
    ]  # fmt: skip
    assert np.load(tmp_path / "features.npy", allow_pickle=False).shape == (12, 512)
    record = json.loads((tmp_path / "labs.json").read_text())
    assert [entry["name"] for entry in record["labs"]] == ["aachen", "bremen"]
    features = open_labs(tmp_path)[1].training.features
    assert not features.flags.owndata and not features.flags.writeable
