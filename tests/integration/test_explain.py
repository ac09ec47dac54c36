"""`crossply lab explain`: over the lab's own specimens, with the features of training."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import crossply
from client.choice import ALONE, SHARED
from client.dataset import load_dataset
from client.describing import describe_micrograph
from client.engine_choice import EngineChoice
from client.engines import load_engine
from client.feature_store import FeatureStore
from client.features import extract, task_of
from client.own_version import OwnVersion, keep_own_version
from client.saliency import SpecimenView, occlusion
from client.saliency_plot import saliency_png
from client.versions import Versions
from common.bundle import Model
from common.federation import Federation, load_federation
from common.head import federation_shapes
from common.intervals import Intervals
from common.provenance import Provenance
from common.release import Release, load_release
from common.standardise import Standardiser


def federation_of(lab: Any) -> Federation:
    lab.federation["backbone"] = {"name": "efficientnet_lite0"}
    lab.federation["imaging"] = {"scale": "physical", "um_per_px": 1.0, "tile_px": 32}
    lab.federation["covariates"] = {"cure": {"unit": "degC", "range": [20, 250]}}
    lab.federation["descriptors"] = {"names": ["grey_entropy", "glcm_contrast"]}
    lab.settings["data"] |= {"um_per_px": 1.0, "image": "{id}*.png"}
    lab.settings["covariates"] = {"cure": {"column": "cure", "unit": "degC"}}
    lab.add_column("cure", [str(160 + i) for i in range(24)])
    lab.write_image("S01b.png", np.random.default_rng(99).integers(1, 255, (40, 40), np.uint8))
    lab.write()
    return load_federation(lab.path)


def released(federation: Federation, features: np.ndarray, folder: Path) -> Path:
    generator = np.random.default_rng(0)
    shapes = federation_shapes(federation)
    standardiser = Standardiser.fit(
        features,
        generator.uniform(400, 900, (len(features), 2)),
        feature_shift=federation.feature_shift,
        feature_weight=federation.feature_weight,
        target_shift=federation.target_shift,
    )
    head = {name: generator.normal(0, 0.05, s).astype(np.float32) for name, s in shapes.items()}
    none = np.zeros((0, 2))
    Release(
        federation=federation,
        model=Model(head=head, standardiser=standardiser, fingerprint=federation.fingerprint()),
        provenance=Provenance(
            labs=(), num_examples=np.zeros(0), left_out_count=none, left_out_squared=none
        ),
    ).write(folder)
    return folder


def test_a_model_is_explained_at_the_lab(
    lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSPLY_CACHE", str(tmp_path / "cache"))
    federation = federation_of(lab)
    dataset = load_dataset(lab.path, federation)
    specimens = extract(dataset, federation, FeatureStore(tmp_path / "cache"))

    # the specimen that is looked at has the features that it was trained with
    choice = EngineChoice(engine="torch", device="cpu", precision="float32")
    engine = load_engine(federation.backbone, 32, choice)
    assert len(dataset.micrographs[0]) == 2
    tasks = [task_of(image, dataset, federation) for image in dataset.micrographs[0]]
    for shown in (0, 1):
        view = SpecimenView(tasks, shown, engine, dataset.covariates[0])
        found = view.features(view.grey)
        # the other micrograph's tiles come first in training: sums in another order
        np.testing.assert_allclose(found, specimens.features[0], rtol=1e-5, atol=1e-6)

    # what is hidden is hidden from descriptors too; of two micrographs each counts for one half
    view = SpecimenView(tasks, 0, engine, dataset.covariates[0])
    deep = federation.num_deep_features
    seen = occlusion(view.grey, lambda grey: view.features(grey)[deep : deep + 1], parts=4)
    assert seen.change.shape == (3, 4, 1)
    hidden = view.grey.copy()
    hidden[:16, :16] = view.grey.mean()
    entropy = [
        describe_micrograph(grey, 1.0, federation.imaging, tasks[0].descriptors)[0]
        for grey in (hidden, view.grey)
    ]
    assert entropy[0] < entropy[1]
    assert seen.change[0, 0, 0] == pytest.approx((entropy[0] - entropy[1]) / 2, rel=1e-4)

    model, picture = (
        released(federation, specimens.features, tmp_path / "model"),
        tmp_path / "s.png",
    )
    arguments = ["lab", "explain", str(model), str(lab.path)]
    result = CliRunner().invoke(crossply.app, [*arguments, "--json", "--saliency", str(picture)])
    assert result.exit_code == 0, result.output
    strength = json.loads(result.stdout)["strength"]
    names = [group["name"] for group in strength["groups"]]
    assert names == ["deep features", "grey_entropy", "glcm_contrast", "cure"]
    assert strength["num_specimens"] == 24 and strength["unit"] == "MPa"
    assert len(strength["groups"][3]["values"]) == 15 and strength["groups"][0]["values"] == []
    with Image.open(picture) as image:
        assert image.format == "PNG" and min(image.size) > 200
    told = CliRunner().invoke(crossply.app, [*arguments, "--repeats", "2"])
    assert told.exit_code == 0 and "cure" in told.stdout and "MPa" in told.stdout
    note = " ".join(told.stderr.split())
    assert "four of five were trained on, and the error on new specimens is larger" in note
    unknown = CliRunner().invoke(crossply.app, [*arguments, "--specimen", "S99"])
    assert "the lab has no specimen 'S99'" in str(unknown.exception)


def test_what_is_explained_is_what_the_lab_predicts_with(
    lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSPLY_CACHE", str(tmp_path / "cache"))
    federation = federation_of(lab)
    specimens = extract(
        load_dataset(lab.path, federation), federation, FeatureStore(tmp_path / "cache")
    )
    folder = released(federation, specimens.features, tmp_path / "model")
    whole = load_release(folder)
    deaf = {name: np.zeros_like(array) for name, array in whole.model.head.items()}
    own = OwnVersion(
        versions=Versions(model=whole.model, personalised=None),
        chosen=(SHARED, ALONE),
        offset=np.zeros(2),
        intervals=Intervals(quantile=np.ones((2, 2))),
        alone=replace(whole.model, head=deaf),
    )
    keep_own_version(own, whole.digest, folder)

    def grows(*options: str) -> list[list[float]]:
        arguments = ["lab", "explain", str(folder), str(lab.path), "--repeats", "2", "--json"]
        result = CliRunner().invoke(crossply.app, [*arguments, *options])
        assert result.exit_code == 0, result.output
        assert ("by this lab's own version" in result.stderr) == (not options)
        found = json.loads(result.stdout).values()
        versions = [target["version"] for target in found]
        assert versions == ([SHARED, SHARED] if options else [SHARED, ALONE])
        return [[group["increase"] for group in target["groups"]] for target in found]

    strength, modulus = grows()
    assert grows("--shared")[0] == strength
    # a head that looks at nothing says the same whatever is dealt out
    assert not any(modulus) and any(grows("--shared")[1])


def test_a_map_has_a_panel_for_each_target() -> None:
    federation = Federation.model_validate(
        {
            "name": "test",
            "targets": {
                "strength": {"unit": "MPa", "range": [0, 3000]},
                "share": {"unit": "dimensionless", "range": [0, 1]},
            },
            "imaging": {"scale": "fit"},
            "backbone": {"name": "resnet18"},
        }
    )
    grey = np.random.default_rng(0).random((60, 80)).astype(np.float32)
    found = occlusion(grey, lambda shown: np.array([600 + shown.max(), 0.5]))
    content = saliency_png(found, federation)
    with Image.open(io.BytesIO(content)) as image:
        assert image.size[0] > 1.8 * image.size[1]
    assert content == saliency_png(found, federation)
