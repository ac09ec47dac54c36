"""Which engine a lab's features come from: what is allowed, and what the machine has."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client import engine_choice
from client.engine_choice import choose_engine, cpu_has_bfloat16
from common.federation import Backbone

CPUINFO = "processor\t: 0\nflags\t\t: fpu avx512f {}\n"


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    cpu_has_bfloat16.cache_clear()
    yield
    cpu_has_bfloat16.cache_clear()


def resnet(**agreed: Any) -> Backbone:
    return Backbone(name="resnet50", **agreed)


def on_machine(
    monkeypatch: pytest.MonkeyPatch,
    *,
    flags: str = "",
    gpu: bool = False,
    gpu_has_bfloat16: bool = False,
    openvino: bool = True,
) -> None:
    text = CPUINFO.format(flags)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
    monkeypatch.setattr(engine_choice, "has_gpu", lambda: gpu)
    monkeypatch.setattr(engine_choice, "_gpu_has_bfloat16", lambda: gpu_has_bfloat16)
    monkeypatch.setattr(engine_choice, "find_spec", lambda _: object() if openvino else None)


@pytest.mark.parametrize(
    ("agreed", "machine", "chosen"),
    [
        ({}, {}, "torch-cpu-float32"),
        ({}, {"flags": "avx512_bf16"}, "torch-cpu-float32"),
        ({"precision": "bfloat16"}, {}, "torch-cpu-float32"),
        ({"precision": "bfloat16"}, {"flags": "avx512_bf16"}, "torch-cpu-bfloat16"),
        ({"precision": "bfloat16"}, {"flags": "amx_tile amx_bf16"}, "torch-cpu-bfloat16"),
        ({"precision": "bfloat16"}, {"flags": "avx512_bf16_like"}, "torch-cpu-float32"),
        ({"engine": "any"}, {}, "openvino-cpu-float32"),
        ({"engine": "any"}, {"openvino": False}, "torch-cpu-float32"),
        (
            {"engine": "any", "precision": "bfloat16"},
            {"flags": "avx512_bf16"},
            "openvino-cpu-bfloat16",
        ),
        ({"engine": "any"}, {"gpu": True}, "torch-cuda-float32"),
        ({}, {"gpu": True, "gpu_has_bfloat16": True}, "torch-cuda-float32"),
        ({"precision": "bfloat16"}, {"gpu": True}, "torch-cuda-float32"),
        (
            {"precision": "bfloat16"},
            {"gpu": True, "gpu_has_bfloat16": True},
            "torch-cuda-bfloat16",
        ),
    ],
)
def test_the_fastest_that_is_allowed_and_there(
    agreed: dict[str, Any], machine: dict[str, Any], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(monkeypatch, **machine)
    assert choose_engine(resnet(**agreed)).name.rpartition("-")[0] == chosen


def test_a_system_without_cpuinfo_has_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> str:
        raise FileNotFoundError("/proc/cpuinfo")

    monkeypatch.setattr(Path, "read_text", missing)
    assert not cpu_has_bfloat16()
