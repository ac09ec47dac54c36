"""An optional engine that is installed and does not work costs time, and no run."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest

from client.dataset import load_dataset
from client.engine_choice import choose_engine
from client.engines import working_engine
from client.feature_store import FeatureStore
from client.features import extract
from client.findings import Findings, Level
from client.reference import check_reference
from client.specimens import Specimens
from common.federation import Backbone, Federation

ANY = Backbone(name="efficientnet_lite0", engine="any")
TILE_PX = 44
"""No other test loads an engine for tiles of this size, which would be at hand then."""


@pytest.fixture
def half_an_openvino(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An openvino package whose libraries are missing, in place of the good one."""
    package = tmp_path / "site" / "openvino"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('raise OSError("libopenvino.so: no such file")')
    monkeypatch.syspath_prepend(str(package.parent))
    for name in [name for name in sys.modules if name.partition(".")[0] == "openvino"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "client.openvino_engine", raising=False)


def features_of(lab: Any, kept: Path) -> Specimens:
    federation = Federation.model_validate(lab.federation)
    return extract(load_dataset(lab.path, federation), federation, FeatureStore(kept))


@pytest.mark.usefixtures("half_an_openvino")
def test_features_are_torchs_and_kept_as_torchs(
    lab: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lab.federation["imaging"]["tile_px"] = TILE_PX
    lab.federation["backbone"] = {"name": "efficientnet_lite0", "engine": "any"}
    lab.write()
    assert choose_engine(ANY).engine == "openvino"
    fallen_back = features_of(lab, tmp_path / "kept")
    (warning,) = caplog.messages
    assert warning.startswith(
        "OpenVINO is installed and does not work (OSError: libopenvino.so: no such file); install"
    )
    assert warning.endswith("; torch is used until then")
    lab.federation["backbone"]["engine"] = "torch"
    lab.write()
    torchs = features_of(lab, tmp_path / "kept")
    np.testing.assert_array_equal(torchs.features, fallen_back.features)
    assert FeatureStore(tmp_path / "kept").summary().num_vectors == 24


def test_a_network_that_does_not_compile_is_run_by_torch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("illegal instruction")

    monkeypatch.setattr(openvino, "convert_model", fails)
    choice, engine = working_engine(ANY, TILE_PX)
    assert choice.engine == "torch"
    assert engine.vectors(np.zeros((1, TILE_PX, TILE_PX), dtype=np.float32)).shape == (1, 1280)
    assert "(RuntimeError: illegal instruction)" in caplog.text


@pytest.mark.usefixtures("half_an_openvino")
def test_the_check_says_so() -> None:
    federation = Federation.model_validate(
        {
            "name": "few",
            "targets": {"strength": {"unit": "MPa", "range": (0, 3000)}},
            "imaging": {"scale": "pixels", "tile_px": TILE_PX},
            "backbone": ANY.model_dump(),
        }
    )
    findings = Findings()
    check_reference(federation, findings)
    fix, passed = findings.items
    assert (fix.level, passed.level) == (Level.FIX, Level.PASS)
    assert fix.found == "OpenVINO is installed and does not work; torch is used"
    assert passed.found.startswith("torch on the CPU, float32: cosine with the reference 1.000000")


def test_signals_are_handled_after_engines_are_freed() -> None:
    """On processors with AMX a core that is freed takes the stack of signals' handlers along."""
    code = """
import gc, signal
import numpy as np
from client.engine_choice import EngineChoice
from client.engines import load_engine
from common.federation import Backbone

choice = EngineChoice(engine="openvino", device="cpu", precision="float32")
for tile_px in (32, 36):
    engine = load_engine(Backbone(name="efficientnet_lite0"), tile_px, choice)
    engine.vectors(np.zeros((9, tile_px, tile_px), np.float32))
del engine
load_engine.cache_clear()
gc.collect()
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
signal.raise_signal(signal.SIGTERM)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
