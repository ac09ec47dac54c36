"""A lab's own version of a released model: which head for which target, and how sure it is there.

Made at the lab when the model comes, of its specimens and of everyone's counts, kept beside the
model, and never sent. Intervals are everyone's quantiles, drawn towards the lab's own by its number
of specimens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from client.alignment import Alignment
from client.choice import ALONE, OFFSET, SHARED
from client.evaluation import predict_in_units
from client.versions import Versions
from common.bundle import Model
from common.errors import StateError
from common.federation import Federation
from common.files import write_atomically
from common.intervals import GRID, LEVELS, Intervals
from common.release import ReleasedModel, read_intervals
from common.release_check import require_intervals

OF_RELEASE, CHOSEN, SUM = "of-release", "chosen", "sha256"
LAYER, ALIGNMENT, OWN_HEAD = "layer/", "alignment/", "alone"

# RuntimeError is torch's, of arrays that do not fit, and that of endless recursion
_UNFIT = (KeyError, OSError, RuntimeError, SafetensorError, StateError, TypeError, ValueError)


@dataclass(frozen=True, kw_only=True)
class OwnVersion:
    """What a lab uses of a released model.

    Attributes
    ----------
    versions : Versions
    chosen : tuple of str
        For each target, the name of a version (`client.choice`).
    offset : ndarray of shape (n_targets,), in the targets' units
        Added to predictions; zero but where an offset was chosen.
    intervals : Intervals
    alone : Model or None
        The lab's own head, where a target stays with it.
    """

    versions: Versions
    chosen: tuple[str, ...]
    offset: np.ndarray
    intervals: Intervals
    alone: Model | None = None

    @property
    def stays_alone(self) -> np.ndarray:
        """Which targets are predicted by the lab's own head, of shape (n_targets,), bool."""
        return np.array([version == ALONE for version in self.chosen])

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Predict each target by its version.

        Parameters
        ----------
        features : ndarray of shape (n_specimens, n_features), as extracted

        Returns
        -------
        ndarray of shape (n_specimens, n_targets), in the targets' units
        """
        found = self.versions.predictions(features, self.chosen)
        found[OFFSET] = found[SHARED] + self.offset
        if self.alone is not None:
            found[ALONE] = predict_in_units(self.alone.head, self.alone.standardiser, features)
        columns = [found[name][:, column] for column, name in enumerate(self.chosen)]
        return np.stack(columns, axis=1)

    def to_bytes(self, digest: str) -> bytes:
        """Return the file of it, for the release of this digest."""
        arrays = {
            "quantile": self.intervals.quantile,
            "levels": np.array(LEVELS),
            "grid": GRID,
            "offset": self.offset,
        }
        if (head := self.versions.personalised) is not None:
            # the layers before are those of the release
            arrays |= {LAYER + name: head[name] for name in list(head)[-2:]}
        for version, alignment in self.versions.alignments.items():
            arrays |= {f"{ALIGNMENT}{version}/{name}": a for name, a in vars(alignment).items()}
        if self.alone is not None:
            arrays[OWN_HEAD] = np.frombuffer(self.alone.to_bytes(), np.uint8)
        held = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        facts = {OF_RELEASE: digest, CHOSEN: json.dumps(self.chosen)}
        return save_tensors(held, facts | {SUM: _sum_of(held, facts)})


def own_path(model: Path) -> Path:
    """Return where the lab's own version of a released model lies: beside its folder.

    Examples
    --------
    >>> own_path(Path("state/model")).name
    'model-own-version.safetensors'
    """
    return model.absolute().parent / f"{model.absolute().name}-own-version.safetensors"


def keep_own_version(own: OwnVersion, digest: str, model: Path) -> None:
    """Write the lab's own version beside the folder that the model is to be kept in.

    Raises
    ------
    StateError
        If it cannot be written.
    """
    path = own_path(model)
    try:
        write_atomically(path, own.to_bytes(digest))
    except OSError as error:
        raise StateError(f"{path} cannot be written: {error.strerror}; make room") from error


def load_own_version(model: Path, released: ReleasedModel) -> OwnVersion | None:
    """Return the lab's own version, or None where there is none of this very release.

    Raises
    ------
    StateError
        If the file cannot be read, or was altered.
    """
    path = own_path(model)
    if not path.exists():
        return None
    try:
        if not path.is_file():
            raise ValueError("no plain file, which might never end")
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        if metadata.get(OF_RELEASE) != released.digest:
            return None
        content = path.read_bytes()
        arrays = load_tensors(content)
        facts = {name: metadata[name] for name in (OF_RELEASE, CHOSEN)}
        if metadata[SUM] != _sum_of(arrays, facts):
            raise ValueError("its SHA-256 is another one")
        own = OwnVersion(
            versions=_versions(arrays, released),
            chosen=tuple(json.loads(metadata[CHOSEN])),
            offset=arrays["offset"],
            intervals=read_intervals(content),
            alone=(
                Model.from_bytes(arrays[OWN_HEAD].tobytes(), path) if OWN_HEAD in arrays else None
            ),
        )
        _require_fit(own, released.federation)
        return own
    except _UNFIT as error:
        raise StateError(
            f"{path} was cut or altered; remove it, and predictions are the shared model's, with "
            "everyone's intervals"
        ) from error


def _require_fit(own: OwnVersion, federation: Federation) -> None:
    """Try it once: whoever sends the folder may have sent the file beside it, with its sum."""
    num_targets = len(federation.targets)
    require_intervals(own.intervals, num_targets)
    found = own.predict(np.zeros((1, federation.num_features), np.float32))
    if found.shape != (1, num_targets) or not np.isfinite(found).all():
        raise ValueError("it does not predict the federation's targets")


def _sum_of(arrays: Mapping[str, np.ndarray], facts: Mapping[str, str]) -> str:
    """Return the SHA-256 of a file's arrays and of what is said about them."""
    found = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(arrays):
        found.update(name.encode() + arrays[name].tobytes())
    return found.hexdigest()


def _versions(arrays: dict[str, np.ndarray], released: ReleasedModel) -> Versions:
    layer = {
        name.removeprefix(LAYER): array for name, array in arrays.items() if name.startswith(LAYER)
    }
    names = {name.split("/")[1] for name in arrays if name.startswith(ALIGNMENT)}
    if names and released.novelty is None:
        raise ValueError("it is aligned to components that the release does not have")
    return Versions(
        model=released.model,
        personalised=released.model.head | layer if layer else None,
        novelty=released.novelty,
        alignments={
            name: Alignment(
                matrix=arrays[f"{ALIGNMENT}{name}/matrix"],
                offset=arrays[f"{ALIGNMENT}{name}/offset"],
            )
            for name in names
        },
    )
