"""A lab's own intervals: everyone's quantiles, drawn towards its own specimens' by their number.

Made at the lab when the model comes, of its held-out specimens and of everyone's counts, kept
beside the model, and never sent.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from client.evaluation import calibrate
from client.lab import Lab
from common.errors import RequestError, StateError
from common.files import write_atomically
from common.intervals import Intervals, shrunk
from common.release import Release, ReleasedModel, intervals_bytes, read_intervals

log = logging.getLogger(__name__)

OF_RELEASE = "of-release"


def own_path(model: Path) -> Path:
    """Return where the lab's own intervals for a released model lie: beside its folder.

    Examples
    --------
    >>> own_path(Path("state/model")).name
    'model-own-intervals.safetensors'
    """
    return model.absolute().parent / f"{model.absolute().name}-own-intervals.safetensors"


def own_intervals(lab: Lab, release: Release) -> Intervals:
    """Calibrate on the lab's held-out specimens and on a share of everyone's.

    Raises
    ------
    RequestError
        If a prediction is not finite.
    """
    model, told = release.model, release.provenance.calibration
    found = calibrate(model.head, model.standardiser, lab.held_out, lab.federation, None)
    own = found.counts.sum(axis=0)
    everyone = np.zeros_like(own) if told is None else told.counts.sum(axis=0)
    # this lab's own are among everyone's, unless it kept them back
    return Intervals.calibrated(shrunk(own, np.maximum(everyone - own, 0.0)))


def keep_own_intervals(lab: Lab, release: Release, model: Path) -> None:
    """Write the lab's own intervals beside the folder that the model is to be kept in.

    Raises
    ------
    StateError
        If they cannot be written.
    """
    try:
        intervals = own_intervals(lab, release)
    except RequestError as error:
        log.warning("no intervals of this lab's own: %s", error)
        return
    path = own_path(model)
    try:
        write_atomically(path, intervals_bytes(intervals, **{OF_RELEASE: release.digest}))
    except OSError as error:
        raise StateError(f"{path} cannot be written: {error.strerror}; make room") from error


def load_own_intervals(model: Path, released: ReleasedModel) -> Intervals | None:
    """Return the lab's own intervals, or None where there are none for this very release.

    Raises
    ------
    StateError
        If the file cannot be read, or was altered.
    """
    path = own_path(model)
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        if metadata.get(OF_RELEASE) != released.digest:
            return None
        return read_intervals(path.read_bytes())
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise StateError(
            f"{path} was cut or altered; remove it, and predictions have everyone's intervals"
        ) from error
