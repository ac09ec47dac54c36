"""The model that a run ends with, as one file: a head, its standardiser, and whose they are."""

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
from common.files import write_atomically
from common.standardise import Standardiser

if TYPE_CHECKING:
    # torch comes with it, and commands that only look at a folder do without
    from common.head import HeadArrays

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

    def save(self, path: Path) -> None:
        """Write the model, whole or not at all.

        Raises
        ------
        StateError
            If it cannot be written, for want of space or rights.
        """
        arrays = {HEAD + name: np.ascontiguousarray(a) for name, a in self.head.items()}
        for name, array in vars(self.standardiser).items():
            arrays[STANDARDISER + name] = np.ascontiguousarray(array)
        content = save_tensors(arrays, metadata={"fingerprint": self.fingerprint})
        try:
            write_atomically(path, content)
        except OSError as error:
            raise StateError(f"{path} cannot be written: {error.strerror}; make room") from error

    @classmethod
    def load(cls, path: Path) -> Model:
        """Read a model.

        Raises
        ------
        StateError
            If the file is missing, cut, or no model of crossply.
        """
        try:
            content = path.read_bytes()
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            arrays = load_tensors(content)
            return cls(
                head=_below(HEAD, arrays),
                standardiser=Standardiser(**_below(STANDARDISER, arrays)),
                fingerprint=header["__metadata__"]["fingerprint"],
            )
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise StateError(f"{path} is no model of crossply, or was cut or altered") from error


def _below(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
