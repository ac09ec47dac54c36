"""A run's state on disk: written whole after each step, found again after any crash.

Each state is a file of its own, ``<number>.checkpoint``: a line with the SHA-256 of what follows,
in hex, a line of JSON, and a safetensors file with the arrays. The newest two are kept. One that
was cut or altered is set aside, and the one before it is used: rounds are deterministic, so what
was lost with it is computed again to the same bits.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from common.errors import StateError
from common.files import write_atomically
from common.gram import GramSums
from common.intervals import CalibrationSums
from common.metrics import ErrorSums
from common.standardise import Standardiser
from server.evidence import Evaluation, Products
from server.roster import Roster
from server.state import Progress, RoundRecord, RoundState

log = logging.getLogger(__name__)

T = TypeVar("T")

KEPT = 2

BY_NODE = ("names", "buckets", "num_examples")
BY_NAME = ("standardised", "named_in_card", "excluded", "accepted")
"""What of a roster is kept as JSON; its nodes are strings there."""


class Checkpoints:
    """The states of one run, in one folder.

    Parameters
    ----------
    folder : Path
        Made if it is missing.
    fingerprint : str
        Of the federation; the state of a run under another is refused.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._folder = folder
        self._fingerprint = fingerprint

    def save(self, progress: Progress) -> None:
        """Write a state; it replaces the one before only when it is whole and on the disk.

        Raises
        ------
        StateError
            If it cannot be written, for want of space or rights; earlier states stay.
        """
        payload = _to_bytes(progress, self._fingerprint)
        digest = hashlib.sha256(payload).hexdigest().encode()
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            written = self._written()
            number = int(written[-1].stem) + 1 if written else 1
            write_atomically(self._folder / f"{number:08d}.checkpoint", digest + b"\n" + payload)
            for path in written[: -(KEPT - 1)]:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StateError(
                f"the run's state cannot be written to {self._folder}: {error.strerror}; what was "
                "written before is whole: make room and start again, the run goes on from there"
            ) from error

    def load(self) -> Progress | None:
        """Return the newest state that is whole, or None if there is no state.

        Raises
        ------
        StateError
            If there are states and none is whole, or they are of another federation.
        """
        for path in reversed(self._written()):
            payload = _checked(path)
            if payload is not None:
                return _from_bytes(payload, self._fingerprint, path)
            path.replace(path.with_suffix(".damaged"))
            log.warning("%s was cut or altered, and is set aside", path.name)
        # also at the next start: a run is begun anew by a person, not by whoever starts again
        if any(self._folder.glob("*.damaged")):
            raise StateError(
                f"no state of the run in {self._folder} is whole; restore the folder from a copy, "
                "or remove it to train from the start"
            )
        return None

    def _written(self) -> list[Path]:
        return sorted(self._folder.glob("*.checkpoint"))


def _checked(path: Path) -> bytes | None:
    digest, _, payload = path.read_bytes().partition(b"\n")
    whole = hashlib.sha256(payload).hexdigest().encode() == digest
    return payload if whole else None


def _to_bytes(progress: Progress, fingerprint: str) -> bytes:
    state, roster = progress.state, progress.roster
    groups: dict[str, dict[str, np.ndarray]] = {
        "head": dict(state.head),
        "optimizer": dict(state.optimizer),
        "standardiser": dict(vars(progress.standardiser)),
        "target-counts": {str(node): a for node, a in roster.target_counts.items()},
    }
    for kind, of_labs in _by_lab(progress).items():
        groups |= {f"{kind}:{lab}": dict(vars(sums)) for lab, sums in of_labs.items()}
    groups |= {f"crossed:{lab}": dict(at_labs) for lab, at_labs in progress.crossed.items()}
    if progress.products is not None:
        groups["basis"] = {"basis": progress.products.basis}
    if progress.projection is not None:
        groups["projection"] = {"projection": progress.projection}
    arrays = {
        json.dumps([group, name]): np.ascontiguousarray(array)
        for group, named in groups.items()
        for name, array in named.items()
    }
    record = {
        "fingerprint": fingerprint,
        "phase": progress.phase,
        "released": progress.released,
        # safetensors sorts its arrays, and strategies go by the head's own order
        "order": list(arrays),
        "server_round": state.server_round,
        # not asdict, which copies deeply: the history is written after every round
        "history": [vars(record) for record in state.history],
        "roster": {name: getattr(roster, name) for name in (*BY_NODE, *BY_NAME)},
    }
    return json.dumps(record).encode() + b"\n" + save_tensors(arrays)


def _from_bytes(payload: bytes, fingerprint: str, path: Path) -> Progress:
    try:
        line, _, tensors = payload.partition(b"\n")
        record: dict[str, Any] = json.loads(line)
        groups: dict[str, dict[str, np.ndarray]] = {}
        arrays = load_tensors(tensors)
        for key in record["order"]:
            group, name = json.loads(key)
            groups.setdefault(group, {})[name] = arrays[key]
        if record["fingerprint"] != fingerprint:
            raise StateError(
                f"{path.parent} holds a run under the agreement {record['fingerprint'][:12]}, and "
                f"the federation file is {fingerprint[:12]}; restore the file that the labs agreed "
                "to, or make a new state folder"
            )
        return _progress(record, groups)
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise StateError(f"{path} was written by another version of crossply") from error


def _by_lab(progress: Progress) -> dict[str, Mapping[str, Any]]:
    """Return all sums that are kept by lab, by kind."""
    products = progress.products.of_labs if progress.products else {}
    return {"products": products, **vars(progress.evaluation)}


def _progress(record: dict[str, Any], groups: dict[str, dict[str, np.ndarray]]) -> Progress:
    def by_lab(kind: str, made: Callable[..., T]) -> dict[str, T]:
        own = f"{kind}:"
        return {
            group.removeprefix(own): made(**arrays)
            for group, arrays in groups.items()
            if group.startswith(own)
        }

    standardiser = Standardiser(**groups["standardiser"])
    of_labs = by_lab("products", GramSums)
    products = None
    if of_labs:
        products = Products(
            basis=groups["basis"]["basis"], of_labs=of_labs, variance=standardiser.total_variance
        )
    history = tuple(
        RoundRecord(**item | {"labs": tuple(item["labs"]), "out": tuple(item["out"])})
        for item in record["history"]
    )
    return Progress(
        phase=record["phase"],
        released=tuple(record["released"]),
        roster=_roster(record["roster"], groups.get("target-counts", {})),
        standardiser=standardiser,
        state=RoundState(
            server_round=record["server_round"],
            head=groups["head"],
            optimizer=groups.get("optimizer", {}),
            history=history,
        ),
        projection=groups.get("projection", {}).get("projection"),
        products=products,
        evaluation=Evaluation(
            errors=by_lab("errors", ErrorSums),
            baseline=by_lab("baseline", ErrorSums),
            calibration=by_lab("calibration", CalibrationSums),
        ),
        crossed=by_lab("crossed", dict),
    )


def _roster(saved: dict[str, Any], target_counts: dict[str, np.ndarray]) -> Roster:
    by_node: dict[str, Any] = {
        name: {int(node): value for node, value in saved[name].items()} for name in BY_NODE
    }
    counts = {int(node): count for node, count in target_counts.items()}
    by_name = {name: saved[name] for name in BY_NAME}
    return Roster(target_counts=counts, **by_node, **by_name)
