import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from pydantic import ValidationError

from common.errors import ConfigurationError
from common.federation import Federation, load_federation

DATA: dict[str, Any] = {
    "name": "cfrp-strength",
    "targets": {"tensile_strength": {"unit": "MPa", "range": [0, 3000]}},
    "imaging": {"scale": "physical", "um_per_px": 0.5},
    "backbone": {"name": "efficientnet_lite0", "weights": "imagenet"},
}


def written(folder: Path, *changes: tuple[str, Any]) -> Path:
    data = copy.deepcopy(DATA)
    for dotted, value in changes:
        *tables, key = dotted.split(".")
        table = data
        for name in tables:
            table = table.setdefault(name, {})
        table[key] = value
    path = folder / "federation.toml"
    path.write_text(tomli_w.dumps(data))
    return path


def test_the_file_is_read_with_its_defaults(tmp_path: Path) -> None:
    federation = load_federation(written(tmp_path))
    assert federation.training.rounds == 40
    assert federation.head.hidden == (64,)
    assert federation.num_features == 2560
    assert load_federation(tmp_path) == federation


def test_it_is_frozen(tmp_path: Path) -> None:
    federation = load_federation(written(tmp_path))
    with pytest.raises(ValidationError):
        federation.name = "other"


def test_the_fingerprint_follows_meaning_not_layout(tmp_path: Path) -> None:
    path = written(tmp_path)
    first = load_federation(path).fingerprint()
    path.write_text("# a comment\n" + path.read_text() + "\n[training]\nrounds = 40\n")
    assert load_federation(path).fingerprint() == first
    assert load_federation(written(tmp_path, ("training.rounds", 41))).fingerprint() != first


def test_the_licence_is_part_of_what_is_agreed_and_an_empty_table_is_none(tmp_path: Path) -> None:
    first = load_federation(written(tmp_path))
    assert load_federation(written(tmp_path, ("release", {}))).fingerprint() == first.fingerprint()
    other = load_federation(written(tmp_path, ("release.licence", "CC-BY-4.0")))
    assert other.release.licence == "CC-BY-4.0"
    assert other.fingerprint() != first.fingerprint()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "training.learning_rat",
            1.0,
            "'learning_rat'; the closest .* 'learning_rate'",
        ),
        ("trainin", {}, "unknown key 'trainin'; the closest known key is 'training'"),
        ("targets.tensile_strength.unit", "MegaPa", "unknown unit 'MegaPa'"),
        ("targets.tensile_strength.range", [10, 0], "lower limit must be below"),
        ("targets", {}, "targets: .*at least 1"),
        ("name", "x\x1b[8m", "name: .*a character that cannot be printed"),
        ("imaging.um_per_px", -1, "imaging.um_per_px: .*greater than or equal to .*, found -1"),
        ("imaging.scale", "fit", "um_per_px has no meaning"),
        ("backbone.name", "vgg", "found 'vgg'"),
        ("backbone.weights", "local.pth", "needs sha256"),
        ("training.round_deadline", "10", "is not a duration"),
        ("training.round_deadline", "-1 min", "is not a duration"),
        ("training.round_deadline", "0 s", "longer than zero"),
        ("training.round_deadline", "90 days", "at most 30 days"),
        ("training.strategy", "best", "found 'best'"),
        (
            "training.proximal_mu",
            0.1,
            'belongs to fedprox, and the strategy is "fedavg"',
        ),
        ("training.quorum", 1.5, "found 1.5"),
        ("head.hidden", [0], "greater than or equal to 1"),
        ("privacy.min_specimens", "many", "found 'many'"),
        ("release.licence", "MIT\nand more", "release.licence: .*cannot be printed"),
        ("release.licence", "x" * 201, "release.licence: .*at most 200 characters"),
        ("release.licence", "", "release.licence: .*at least 1 character"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as raised:
        load_federation(written(tmp_path, (key, value)))
    assert "federation.toml" in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name = ", "not valid TOML"),
        (b"name = '\xff'", "not UTF-8 at byte 8"),
        (b"", "targets: this key is missing"),
    ],
)
def test_a_file_that_is_none_says_so(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "federation.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        load_federation(path)


def test_overrides_are_checked_like_the_file(tmp_path: Path) -> None:
    path = written(tmp_path)
    changed = load_federation(path, ["training.learning_rate=3e-4", "training.strategy=krum"])
    assert (changed.training.learning_rate, changed.training.strategy) == (3e-4, "krum")
    with pytest.raises(ConfigurationError, match="'rounds'"):
        load_federation(path, ["training.round=3"])
    with pytest.raises(ConfigurationError, match="'name' is not a table"):
        load_federation(path, ["name.x=3"])


def test_every_message_of_several_faults_is_shown(tmp_path: Path) -> None:
    path = written(tmp_path, ("training.rounds", 0), ("imaging.tile_px", 3))
    with pytest.raises(ConfigurationError) as raised:
        load_federation(path)
    assert "training.rounds" in str(raised.value) and "imaging.tile_px" in str(raised.value)


def test_a_model_is_its_canonical_json() -> None:
    federation = Federation.model_validate(DATA)
    assert Federation.model_validate_json(federation.canonical_json()) == federation


def test_each_group_of_features_has_the_variance_of_the_deep_ones() -> None:
    data = DATA | {
        "descriptors": {"names": ["grey_entropy", "fibre_diameter_um", "coherency"]},
        "covariates": {"cure": {"unit": "degC", "range": [20, 250]}},
    }
    federation = Federation.model_validate(data)
    weight, deep = federation.feature_weight, federation.num_deep_features
    deep_weight, described, covariates = np.split(weight, [deep, deep + 3])
    assert len(weight) == federation.num_features and len(covariates) == 1
    assert (deep_weight == 1.0).all() and len(set(described)) == 1
    # standardised features have the variance 1, so that a group has the sum of squared weights
    for group in (described, covariates):
        assert np.square(group).sum() == pytest.approx(deep)
