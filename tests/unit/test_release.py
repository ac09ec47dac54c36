"""A released model is one folder with the same bytes everywhere, and says when it was altered."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from client.prediction import predict_specimens
from common.bundle import Model
from common.card import card
from common.errors import RequestError, StateError
from common.federation import Federation
from common.gram import GramSums
from common.head import federation_shapes, initial_head
from common.intervals import GRID, CalibrationSums, Intervals, score_counts
from common.messages import PROVENANCE, ModelRequest, ReleaseRequest, Terms, max_message_bytes
from common.metrics import ErrorSums
from common.novelty import Novelty
from common.provenance import Provenance, TrainingCurve, mean_half_width, tried_coverage
from common.records import array_record
from common.release import WEIGHTS_FILE, Release, intervals_bytes, load_release
from common.sealed import SUMS, write_sealed
from common.standardise import Standardiser

FEDERATION = Federation.model_validate(
    {
        "name": "cfrp | strength",
        "targets": {
            "strength": {"unit": "MPa", "range": [0, 3000]},
            "modulus": {"unit": "GPa", "range": [0, 400]},
        },
        "covariates": {"cure": {"unit": "degC", "range": [20, 250]}},
        "imaging": {"scale": "physical", "um_per_px": 0.5},
        "backbone": {"name": "resnet18"},
        "head": {"hidden": [3]},
        "privacy": {"min_specimens": 4},
    }
)
N = FEDERATION.num_features


def calibration() -> CalibrationSums:
    scores = np.column_stack([np.linspace(0.1, 2, 20), np.full(20, np.nan)])
    return CalibrationSums(
        counts=np.stack([score_counts(scores), score_counts(scores)]),
        spreads=np.array([[200.0, 0.0], [200.0, 0.0]]),
        novelty=np.zeros(len(GRID) + 1),
    )


def provenance() -> Provenance:
    measured = np.array([[600.0, 70.0], [700.0, 80.0], [800.0, np.nan]])
    shift = FEDERATION.target_shift
    return Provenance(
        labs=("aachen", "bremen"),
        num_examples=np.array([20.0, 0.0]),
        left_out_count=np.array([[16.0, 0.0], [0.0, 0.0]]),
        left_out_squared=np.array([[16 * 50.0**2, 0.0], [0.0, 0.0]]),
        errors=ErrorSums.of(measured, measured + 12.0, shift),
        baseline=ErrorSums.of(measured, measured - 20.0, shift),
        calibration=calibration(),
        training=curve(),
    )


def curve(**changed: np.ndarray) -> TrainingCurve:
    """Return the curve of a run in which nobody tells the loss of the first round."""
    rounds = FEDERATION.training.rounds
    told = {
        "train_loss": np.append(np.nan, np.linspace(1.0, 0.1, rounds - 1)),
        "num_missing": np.arange(rounds) % 3.0,
    }
    return TrainingCurve(**told | changed)


def release() -> Release:
    generator = np.random.default_rng(0)
    around = generator.normal(size=(40, 2))
    sums = GramSums.of(around, np.zeros((40, 2)))
    standardiser = Standardiser.fit(
        generator.gamma(2.0, size=(8, N)),
        np.arange(16.0).reshape(8, 2),
        feature_shift=FEDERATION.feature_shift,
        feature_weight=FEDERATION.feature_weight,
        target_shift=FEDERATION.target_shift,
    )
    return Release(
        federation=FEDERATION,
        model=Model(
            head=initial_head(federation_shapes(FEDERATION), 0),
            standardiser=standardiser,
            fingerprint=FEDERATION.fingerprint(),
        ),
        provenance=provenance(),
        novelty=Novelty.of(sums, np.eye(N)[:, :2]),
    )


def over_the_wire(sent: Release) -> Release:
    """Return what a lab makes of the message."""
    model = ModelRequest(
        terms=Terms.of(FEDERATION), head=sent.model.head, standardiser=sent.model.standardiser
    )
    record = ReleaseRequest(
        model=model, provenance=sent.provenance, novelty=sent.novelty
    ).to_record()
    got = ReleaseRequest.from_record(record, federation=FEDERATION)
    fingerprint = FEDERATION.fingerprint()
    return Release(
        federation=FEDERATION,
        model=Model(
            head=got.model.head, standardiser=got.model.standardiser, fingerprint=fingerprint
        ),
        provenance=got.provenance,
        novelty=got.novelty,
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    made = release()
    made.write(tmp_path / "model")
    found = load_release(tmp_path / "model")
    assert found.federation == FEDERATION and found.digest == made.digest
    for name, array in made.model.head.items():
        np.testing.assert_array_equal(found.model.head[name], array)
    assert list(found.model.head) == list(made.model.head)
    assert found.intervals is not None and found.novelty is not None and made.novelty is not None
    np.testing.assert_array_equal(found.novelty.directions, made.novelty.directions)
    assert found.novelty.threshold == made.novelty.threshold
    # 40 scores from 0.1 to 2, each twice: the 37th of them is 1.9
    assert found.intervals.quantile[1, 0] == GRID[GRID >= 1.9][0]
    assert np.isinf(found.intervals.quantile[:, 1]).all()


def test_law_i2_coordinator_and_lab_write_the_same_bytes_and_again(tmp_path: Path) -> None:
    release().write(tmp_path / "at-the-coordinator")
    over_the_wire(release()).write(tmp_path / "at-the-lab")
    one, other = (tmp_path / name for name in ("at-the-coordinator", "at-the-lab"))
    names = {path.name for path in one.iterdir()}
    assert names == {path.name for path in other.iterdir()} and SUMS in names
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes()
    before = (one / SUMS).stat().st_mtime_ns
    release().write(one)
    assert (one / SUMS).stat().st_mtime_ns == before
    assert len(list(tmp_path.iterdir())) == 2


def test_the_curve_of_the_training_comes_over_the_wire_with_its_gaps() -> None:
    got = over_the_wire(release()).provenance.training
    assert got is not None
    np.testing.assert_array_equal(got.train_loss, curve().train_loss)
    np.testing.assert_array_equal(got.num_missing, curve().num_missing)
    silent = replace(release(), provenance=replace(provenance(), training=None))
    assert over_the_wire(silent).provenance.training is None


def test_another_release_replaces_the_first_and_a_killed_one_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (tmp_path / ".model.writing-killed").mkdir()
    release().write(folder)
    other = replace(release(), novelty=None)
    other.write(folder)
    assert load_release(folder).novelty is None
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    "name", ["model.safetensors", "card.md", "novelty.safetensors", "federation.toml"]
)
def test_a_flipped_bit_is_found_in_every_file(tmp_path: Path, name: str) -> None:
    release().write(tmp_path / "model")
    path = tmp_path / "model" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(StateError, match=f"{name} differs from its checksum in SHA256SUMS; copy"):
        load_release(tmp_path / "model")


def test_a_missing_file_and_a_folder_that_is_none_are_named(tmp_path: Path) -> None:
    release().write(tmp_path / "model")
    (tmp_path / "model" / "intervals.safetensors").unlink()
    with pytest.raises(StateError, match=r"intervals\.safetensors: No such file"):
        load_release(tmp_path / "model")
    with pytest.raises(StateError, match="is no released model: its SHA256SUMS cannot be read"):
        load_release(tmp_path)
    (tmp_path / "model" / SUMS).write_bytes(b"rubbish\n")
    with pytest.raises(StateError, match="SHA256SUMS was altered or damaged"):
        load_release(tmp_path / "model")
    write_sealed(tmp_path / "other", {"note.txt": b"kept"})
    with pytest.raises(StateError, match=r"does not list federation\.toml"):
        load_release(tmp_path / "other")


def test_what_is_no_plain_file_is_named_and_neither_waited_for_nor_read_for_ever(
    tmp_path: Path,
) -> None:
    folder, elsewhere = tmp_path / "model", tmp_path / "elsewhere"
    release().write(folder)
    card_there = folder / "card.md"
    card_there.rename(elsewhere)
    os.mkfifo(card_there)
    with pytest.raises(StateError, match=r"card\.md is a link or no plain file; copy the whole"):
        load_release(folder)
    card_there.unlink()
    for target in (Path("/dev/zero"), elsewhere):
        card_there.symlink_to(target)
        with pytest.raises(StateError, match=r"card\.md is a link or no plain file"):
            load_release(folder)
        card_there.unlink()
    with card_there.open("wb") as sparse:
        sparse.truncate(2**40)
    with pytest.raises(StateError, match=r"card\.md is larger than a released model's can be"):
        load_release(folder)
    (folder / SUMS).unlink()
    os.mkfifo(folder / SUMS)
    with pytest.raises(StateError, match="SHA256SUMS is a link or no plain file"):
        load_release(folder)


def deep_header() -> bytes:
    header = b'{"__metadata__":' + b"[" * 100_000
    return len(header).to_bytes(8, "little") + header


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("versions.json", b"[" * 200_000),
        ("versions.json", b"[1]"),
        ("federation.toml", b"name = " + b"[" * 200_000),
        ("model.safetensors", deep_header()),
        ("intervals.safetensors", b"rubbish"),
        ("novelty.safetensors", b"rubbish"),
    ],
    ids=["deep", "list", "deep-toml", "deep-header", "intervals", "novelty"],
)
def test_rubbish_under_right_checksums_is_refused_in_a_sentence(
    tmp_path: Path, name: str, content: bytes
) -> None:
    write_sealed(tmp_path / "model", release().files | {name: content})
    with pytest.raises(StateError, match=r"crossply, (or|or was cut or) altered"):
        load_release(tmp_path / "model")


def model_with(part: str, **changed: np.ndarray) -> dict[str, bytes]:
    """Return the file of a model some of whose arrays are others."""
    model = release().model
    changed = {name.replace("__", "."): array for name, array in changed.items()}
    if part == "head":
        return {"model.safetensors": replace(model, head=model.head | changed).to_bytes()}
    standardiser = replace(model.standardiser, **changed)
    return {"model.safetensors": replace(model, standardiser=standardiser).to_bytes()}


def intervals_of(quantile: np.ndarray) -> dict[str, bytes]:
    return {"intervals.safetensors": intervals_bytes(Intervals(quantile=quantile))}


def novelty_with(**changed: np.ndarray) -> dict[str, bytes]:
    arrays = {
        "directions": np.ones((N, 1)),
        "mean": np.zeros(1),
        "threshold": np.ones(1),
        "residual": np.zeros(1),
    }
    return {"novelty.safetensors": save(arrays | changed)}


@pytest.mark.parametrize(
    ("altered", "found"),
    [
        (
            model_with("head", **{"0__weight": np.zeros((3, 7), np.float32)}),
            r"model\.safetensors does not fit .* 0\.weight: expected float32 of shape \(3, "
            rf"{N}\), found float32 of shape \(3, 7\); ask whoever",
        ),
        (model_with("head", **{"0__bias": np.zeros(3, np.int64)}), r"0\.bias: .* found int64"),
        (model_with("head", **{"1__bias": np.full(2, np.nan, np.float32)}), r"1\.bias holds NaN"),
        (model_with("head", **{"2__bias": np.zeros(2, np.float32)}), "was cut or altered"),
        (model_with("", feature_scale=np.zeros(N)), "feature_scale is not above zero"),
        (model_with("", target_mean=np.zeros(1)), r"target_mean: expected float64 of shape \(2,\)"),
        (model_with("", target_mean=np.full(2, np.inf)), "target_mean holds NaN or infinity"),
        (intervals_of(np.ones((2, 3))), r"intervals\.safetensors .* quantile: .* found .*\(2, 3\)"),
        (intervals_of(np.full((2, 2), np.nan)), "quantile holds NaN, or a number below zero"),
        (novelty_with(directions=np.ones((5, 1))), r"novelty\.safetensors .* found .*\(5, 1\)"),
        (novelty_with(mean=np.zeros(2)), r"mean: expected float64 of shape \(1,\)"),
        (novelty_with(threshold=np.array([np.nan])), "threshold holds NaN"),
        (novelty_with(another=np.zeros(1)), "expected the arrays"),
        (novelty_with(directions=np.zeros((N, 1))), "directions holds one without a length"),
        (novelty_with(residual=np.array([-1.0])), "residual is below zero"),
    ],
)
def test_a_model_that_does_not_fit_its_federation_is_refused_under_right_checksums(
    tmp_path: Path, altered: dict[str, bytes], found: str
) -> None:
    write_sealed(tmp_path / "model", release().files | altered)
    with pytest.raises(StateError, match=found):
        load_release(tmp_path / "model")


def test_a_model_that_overflows_predicts_nothing(tmp_path: Path) -> None:
    large = {
        "0__bias": np.full(3, 3e38, np.float32),
        "1__weight": np.full((2, 3), 3e38, np.float32),
    }
    write_sealed(tmp_path / "model", release().files | model_with("head", **large))
    released = load_release(tmp_path / "model")
    with pytest.raises(StateError, match="predictions are not finite"):
        predict_specimens(released, None, ["x"], np.full((1, N), 9.0, np.float32))


def test_a_backbone_of_the_labs_own_is_looked_for_beside_and_its_path_is_told_nobody(
    tmp_path: Path,
) -> None:
    data = FEDERATION.model_dump(mode="json", exclude_none=True)
    data["backbone"] |= {"weights": "/home/anna/own.pth", "sha256": "0" * 64}
    federation = Federation.model_validate(data)
    model = replace(release().model, fingerprint=federation.fingerprint())
    replace(release(), federation=federation, model=model).write(tmp_path / "model")
    assert "anna" not in (tmp_path / "model" / "federation.toml").read_text()
    found = load_release(tmp_path / "model").federation
    assert found.backbone.weights == str(tmp_path / "model" / WEIGHTS_FILE)
    assert found.fingerprint() == federation.fingerprint()


def test_the_card_tells_errors_in_units_and_counts_rounded() -> None:
    text = card(FEDERATION, provenance(), None)
    assert text.startswith("# cfrp \\| strength\n")
    assert "| strength | MPa | 0 to 3000 |" in text
    assert "| cure | °C | 20 to 250 |" in text
    # the square root of 50² is 50 MPa; nothing is known of the modulus, nor of bremen
    assert "| aachen | 20 or more | 50 MPa | not known |" in text
    assert "| bremen | not known | not known | not known |" in text
    assert "| strength | 2 or more | 12 MPa | 12 MPa | 0.98 | 20 MPa |" in text
    assert "| modulus | 2 or more | 12 GPa |" in text
    # the 19th of 20 scores from 0.1 to 2 is 1.9 (1.99 on the grid), below which lie 19
    assert "| strength | 90% | 95% | ± 19.9 MPa |" in text
    assert "| modulus | 90% | not known | too few specimens |" in text
    assert "the model cannot tell whether it is" in text


def test_the_card_says_what_licence_was_agreed_or_that_none_is_stated() -> None:
    none = "- licence: none is stated in the federation file; ask the labs\n"
    assert none in card(FEDERATION, provenance(), None)
    agreed = FEDERATION.replace(release={"licence": "CC-BY-4.0 <b>or</b> ask"})
    text = card(agreed, provenance(), None)
    assert "- licence: CC-BY-4.0 \\<b\\>or\\</b\\> ask\n" in text
    assert none not in text


def test_coverage_is_tried_on_the_half_that_was_not_calibrated_on() -> None:
    half = score_counts(np.linspace(0.1, 2.0, 20)[:, None])
    twice = score_counts(2 * np.linspace(0.1, 2.0, 20)[:, None])
    sums = CalibrationSums(
        counts=np.stack([half, twice]), spreads=np.full((2, 1), 20.0), novelty=np.zeros(92)
    )
    # the 19th of the small scores is 1.9, below which lie 9 of the large; the other way, all
    assert tried_coverage(sums)[1, 0] == pytest.approx((9 + 20) / 40, abs=0.03)
    # all spreads are 1, so that the width is the quantile: of 40 scores, the 37th
    assert mean_half_width(sums)[1, 0] == GRID[GRID >= 3.4][0]


def test_a_release_that_breaks_the_schema_is_refused() -> None:
    sent = release()
    model = ModelRequest(
        terms=Terms.of(FEDERATION), head=sent.model.head, standardiser=sent.model.standardiser
    )

    def refused(changed: Provenance, match: str) -> None:
        record = ReleaseRequest(model=model, provenance=changed).to_record()
        with pytest.raises(RequestError, match=match):
            ReleaseRequest.from_record(record, federation=FEDERATION)

    told = sent.provenance
    refused(replace(told, num_examples=np.array([1.0, -1.0])), "a number below zero")
    refused(replace(told, labs=("aachen", "aachen")), "different names")
    refused(replace(told, labs=("aachen", "\x1b[2J")), "different names")
    refused(replace(told, labs=("aachen",)), "expected float64 of shape")
    rounds = FEDERATION.training.rounds
    for wrong in (-1.0, 0.5, np.nan, 10_001.0):
        numbers = curve(num_missing=np.full(rounds, wrong))
        refused(replace(told, training=numbers), r"training: a number of labs|num_missing: ")
    infinite = curve(train_loss=np.full(rounds, -np.inf))
    refused(replace(told, training=infinite), "train_loss: holds NaN or infinity")
    short = curve(train_loss=np.ones(rounds - 1))
    refused(replace(told, training=short), r"train_loss: expected float64 of shape \(40,\)")
    record = ReleaseRequest(model=model, provenance=told).to_record()
    record[PROVENANCE] = array_record({"left_out": np.zeros(1)})
    with pytest.raises(RequestError, match="provenance: expected the arrays"):
        ReleaseRequest.from_record(record, federation=FEDERATION)


def test_the_largest_release_fits_into_a_message() -> None:
    sent = release()
    labs, rounds = 10_000, 100_000
    federation = FEDERATION.replace(training={"rounds": rounds})
    wide = replace(
        sent.provenance,
        labs=tuple(f"{'x' * 80}{n}" for n in range(labs)),
        num_examples=np.ones(labs),
        left_out_count=np.ones((labs, 2)),
        left_out_squared=np.ones((labs, 2)),
        training=TrainingCurve(train_loss=np.ones(rounds), num_missing=np.ones(rounds)),
    )
    terms = Terms.of(FEDERATION)
    model = ModelRequest(terms=terms, head=sent.model.head, standardiser=sent.model.standardiser)
    novelty = Novelty(directions=np.ones((N, 32)), mean=np.ones(32), threshold=5.0)
    record = ReleaseRequest(model=model, provenance=wide, novelty=novelty).to_record()
    size = sum(
        array.numpy().nbytes
        for arrays in record.array_records.values()
        for array in arrays.values()
    )
    size += sum(len(name) for name in wide.labs)
    assert size < max_message_bytes(federation)
