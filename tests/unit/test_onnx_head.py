"""The exported head says what the model says."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import crossply
from client.evaluation import predict_in_units
from client.onnx_head import INPUT, OUTPUT, onnx_bytes
from common.bundle import Model
from common.federation import Federation
from common.head import federation_shapes
from common.provenance import Provenance
from common.release import Release, load_release
from common.standardise import Standardiser

onnx = pytest.importorskip("onnx", reason="crossply[onnx] is not installed")


def written(folder: Path, hidden: list[int]) -> Path:
    federation = Federation.model_validate(
        {
            "name": "test",
            "targets": {
                "strength": {"unit": "MPa", "range": [0, 3000]},
                "modulus": {"unit": "GPa", "range": [0, 400]},
            },
            "imaging": {"scale": "fit"},
            "backbone": {"name": "resnet18"},
            "head": {"hidden": hidden},
        }
    )
    generator = np.random.default_rng(0)
    shapes = federation_shapes(federation)
    head = {name: generator.normal(0, 0.3, s).astype(np.float32) for name, s in shapes.items()}
    standardiser = Standardiser.fit(
        generator.gamma(2.0, size=(50, federation.num_features)),
        generator.uniform(400, 900, (50, 2)) * np.array([1.0, 0.1]),
        feature_shift=federation.feature_shift,
        feature_weight=federation.feature_weight,
        target_shift=federation.target_shift,
    )
    none = np.zeros((0, 2))
    model = Model(head=head, standardiser=standardiser, fingerprint=federation.fingerprint())
    told = Provenance(labs=(), num_examples=np.zeros(0), left_out_count=none, left_out_squared=none)
    Release(federation=federation, model=model, provenance=told).write(folder / "model")
    return folder / "model"


@pytest.mark.parametrize("hidden", [[], [16], [16, 8]])
def test_the_reference_evaluator_agrees_to_1e_5(tmp_path: Path, hidden: list[int]) -> None:
    folder = written(tmp_path, hidden)
    released = load_release(folder)
    content = onnx_bytes(released)
    assert content == onnx_bytes(released)
    # some features lie far beyond the four deviations at which they are clipped
    features = np.random.default_rng(1).gamma(2.0, 3.0, (20, 512)).astype(np.float32)
    from onnx.reference import ReferenceEvaluator

    session = ReferenceEvaluator(onnx.load_from_string(content))
    (found,) = session.run([OUTPUT], {INPUT: features})
    expected = predict_in_units(released.model.head, released.model.standardiser, features)
    # float32 adds up in another order, which shows where a prediction is small by cancellation
    largest = np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-5, atol=1e-5 * largest)


def test_the_command_writes_a_file_that_says_what_it_is(tmp_path: Path) -> None:
    folder, out = written(tmp_path, [16]), tmp_path / "head.onnx"
    result = CliRunner().invoke(crossply.app, ["lab", "export", str(folder), str(out)])
    assert result.exit_code == 0, result.output
    assert "strength (MPa), modulus (GPa)" in result.stdout
    properties = {item.key: item.value for item in onnx.load(out).metadata_props}
    assert json.loads(properties["targets"]) == {"strength": "MPa", "modulus": "GPa"}
    assert properties["release"] == load_release(folder).digest
