"""A head, its standardiser, and whose they are, as one file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from common.errors import StateError
from common.standardise import Standardiser

if TYPE_CHECKING:
    # torch comes with it, and commands that only look at a folder do without
    from common.head import HeadArrays

FOLDER_NAME = "model"
"""Of a released model (`common.release`)."""

FILE_NAME = "model.safetensors"

HEAD = "head."
STANDARDISER = "standardiser."


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained head and the standardiser of its inputs and outputs.

    Attributes
    ----------
    fingerprint : str
        Of the federation file that it was trained under.
    """

    head: HeadArrays
    standardiser: Standardiser
    fingerprint: str

    def to_bytes(self) -> bytes:
        """Return the file: the same bytes whenever it is made."""
        arrays = {HEAD + name: np.ascontiguousarray(a) for name, a in self.head.items()}
        for name, array in vars(self.standardiser).items():
            arrays[STANDARDISER + name] = np.ascontiguousarray(array)
        return save_tensors(arrays, metadata={"fingerprint": self.fingerprint})

    @classmethod
    def from_bytes(cls, content: bytes, source: Path) -> Model:
        """Read a model.

        Raises
        ------
        StateError
            Names the source, if it is cut, or no model of crossply.
        """
        try:
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            arrays = load_tensors(content)
            return cls(
                head=_in_order(_below(HEAD, arrays)),
                standardiser=Standardiser(**_below(STANDARDISER, arrays)),
                fingerprint=header["__metadata__"]["fingerprint"],
            )
        except (KeyError, TypeError, ValueError, RecursionError, SafetensorError) as error:
            raise StateError(f"{source} is no model of crossply, or was cut or altered") from error

    @classmethod
    def load(cls, path: Path) -> Model:
        """Read a model's file.

        Raises
        ------
        StateError
            If the file is missing, cut, or no model of crossply.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StateError(f"{path}: {error.strerror}; it is no model of crossply") from error
        return cls.from_bytes(content, path)


def _below(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _in_order(head: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a head in the order of its layers, weight before bias, which safetensors sorts."""
    num_layers = (len(head) + 1) // 2
    names = [f"{layer}.{part}" for layer in range(num_layers) for part in ("weight", "bias")]
    return {name: head[name] for name in names}
