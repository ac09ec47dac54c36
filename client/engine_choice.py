"""Which engine a lab's features come from: decided, and named, without loading one.

What the agreement allows and what the machine has decide. The name stands in the keys of kept
features, and asking for it must not cost the seconds that torch takes to import.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from common.federation import Backbone

REVISION = 3
"""Counts up when the numbers that come out of an engine change by more than rounding."""

_GPU_NODES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """An engine, where it runs, and how precisely.

    Examples
    --------
    >>> EngineChoice(engine="torch", device="cpu", precision="float32").name
    'torch-cpu-float32-3'
    """

    engine: Literal["torch", "openvino"]
    device: Literal["cpu", "cuda"]
    precision: Precision

    @property
    def name(self) -> str:
        """The choice in one word, as it stands in the keys of kept features."""
        return f"{self.engine}-{self.device}-{self.precision}-{REVISION}"


def choose_engine(backbone: Backbone) -> EngineChoice:
    """Choose the fastest engine on this machine that the agreement allows.

    A GPU comes first; OpenVINO, where it is installed and allowed, before torch. Where the
    processor has no bfloat16 the network runs in float32, from which bfloat16 differs by
    rounding: emulating it would cost time and give nothing.
    """
    if has_gpu():
        half = backbone.precision == "bfloat16" and _gpu_has_bfloat16()
        return EngineChoice(
            engine="torch", device="cuda", precision="bfloat16" if half else "float32"
        )
    half = backbone.precision == "bfloat16" and cpu_has_bfloat16()
    openvino = backbone.engine == "any" and find_spec("openvino") is not None
    return EngineChoice(
        engine="openvino" if openvino else "torch",
        device="cpu",
        precision="bfloat16" if half else "float32",
    )


@lru_cache
def has_gpu() -> bool:
    """Tell whether torch sees a GPU; torch is imported only where there may be one."""
    if not any(Path(node).exists() for node in _GPU_NODES):
        return False
    import torch

    return torch.cuda.is_available()


@lru_cache
def cpu_has_bfloat16() -> bool:
    """Tell whether the processor multiplies bfloat16 itself (AVX-512 BF16, AMX, Arm BF16)."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        # not Linux: float32 is always right
        return False
    named = [line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Feat"))]
    return bool(named and _BFLOAT16_FLAGS & set(named[0]))


def _gpu_has_bfloat16() -> bool:
    import torch

    return all(
        torch.cuda.get_device_capability(index) >= (8, 0)
        for index in range(torch.cuda.device_count())
    )
