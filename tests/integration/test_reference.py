"""Features mean the same at every lab, or the lab is told before it joins."""

import hashlib
from typing import Any

import numpy as np
import pytest

from client import reference
from client.engine_choice import EngineChoice
from client.engines import load_engine
from client.findings import Findings, Level
from client.reference import (
    SHIPPED_BACKBONE,
    agreement,
    check_reference,
    compare_with_reference,
    draw_reference_set,
    reference_vectors,
)
from common.configuration import parse
from common.errors import ConfigurationError
from common.federation import Backbone, Federation

FEDERATION = Federation.model_validate(
    {
        "name": "few",
        "targets": {"strength": {"unit": "MPa", "range": (0, 3000)}},
        "imaging": {"scale": "pixels", "tile_px": 64},
        "backbone": {"name": "efficientnet_lite0"},
    }
)


def test_the_set_is_the_same_everywhere() -> None:
    micrographs, fractions = draw_reference_set()
    digest = hashlib.sha256(micrographs.tobytes()).hexdigest()
    assert digest == "598766b88d9c9baf6111cd51bfe1c02121dfbecc2d14f9bd91ff50d455618e3f"
    assert 0.005 < fractions.min() < 0.05 and 0.6 < fractions.max() < 0.9


def test_the_shipped_vectors_are_the_plain_networks() -> None:
    cut = reference.reference_tiles(draw_reference_set()[0], 224)
    shipped = reference_vectors(SHIPPED_BACKBONE, cut)
    computed = reference.plain_vectors(SHIPPED_BACKBONE, cut)
    np.testing.assert_allclose(computed, shipped, rtol=1e-4, atol=2e-5)
    assert agreement(computed, shipped, draw_reference_set()[1]).is_close


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_every_engine_agrees_with_the_reference(engine: Any) -> None:
    choice = EngineChoice(engine=engine, device="cpu", precision="float32")
    loaded = load_engine(SHIPPED_BACKBONE, 224, choice)
    found = compare_with_reference(loaded, SHIPPED_BACKBONE, 224)
    assert found.cosine > 0.99999 and found.effect < 1e-4


def test_a_lab_whose_features_differ_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Blurred:
        tiles_at_once = 1

        def vectors(self, tiles: np.ndarray) -> np.ndarray:
            return reference.plain_vectors(SHIPPED_BACKBONE, np.sqrt(tiles))

    monkeypatch.setattr("client.engines.load_engine", lambda *_: Blurred())
    findings = Findings()
    check_reference(FEDERATION, findings)
    (stop,) = findings.stops
    assert "would mean something else than at other labs" in stop.found


def test_a_gpu_that_cannot_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\nat line 1")

    monkeypatch.setattr("client.reference.working_engine", full)
    findings = Findings()
    check_reference(FEDERATION, findings)
    (stop,) = findings.stops
    assert (
        "does not run on this machine (CUDA out of memory. Tried to allocate 2 GiB)" in stop.found
    )


def test_a_lab_whose_features_agree_passes() -> None:
    findings = Findings()
    check_reference(FEDERATION, findings)
    (only,) = findings.items
    assert only.level is Level.PASS
    assert "torch on the CPU, float32: cosine with the reference 1.000000" in only.found


def test_weights_that_are_missing_are_found_before_joining() -> None:
    chosen = Backbone(name="resnet18", weights="/no/such.pth", sha256="0" * 64)
    findings = Findings()
    check_reference(FEDERATION.replace(backbone=chosen.model_dump()), findings)
    (stop,) = findings.stops
    assert "weights cannot be read" in stop.found


def test_half_precision_of_the_small_backbone_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="loses its meaning in bfloat16"):
        parse(Backbone, {"name": "efficientnet_lite0", "precision": "bfloat16"}, "federation.toml")
