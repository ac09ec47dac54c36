"""Virtual labs as files: written once, opened by the processes of another engine.

Arrays of all labs lie in one file each, in NumPy's own format without pickle, and are mapped into
memory: processes on one machine share their pages.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context
from numpy.lib.format import open_memmap

from client.lab import Lab
from client.specimens import Specimens
from common.federation import Federation

LABS = "labs.json"
ARRAYS = ("features", "targets", "groups")


def write_labs(labs: Sequence[Lab], folder: Path) -> None:
    """Write labs of one federation into a folder.

    Parameters
    ----------
    labs : sequence of Lab
        Virtual ones: they keep no model.
    folder : Path
    """
    parts = [part for lab in labs for part in (lab.training, lab.held_out)]
    for name in ARRAYS:
        _write(folder / f"{name}.npy", [getattr(part, name) for part in parts])
    record = {
        "federation": labs[0].federation.model_dump(mode="json"),
        "labs": [
            {
                "name": lab.name,
                "min_specimens": lab.min_specimens,
                "training": lab.training.ids,
                "held_out": lab.held_out.ids,
            }
            for lab in labs
        ],
    }
    (folder / LABS).write_text(json.dumps(record), encoding="utf-8")


@lru_cache(maxsize=1)
def open_labs(folder: Path) -> tuple[Lab, ...]:
    """Open the labs of a folder, in the order in which they were written; once a process."""
    record = json.loads((folder / LABS).read_text(encoding="utf-8"))
    federation = Federation.model_validate_json(json.dumps(record["federation"]))
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    parts = list(_parts(record["labs"], arrays))
    return tuple(
        Lab(
            federation=federation,
            training=training,
            held_out=held_out,
            min_specimens=lab["min_specimens"],
        )
        for lab, training, held_out in zip(record["labs"], parts[::2], parts[1::2], strict=True)
    )


def lab_of_node(folder: Path, context: Context) -> Lab:
    """Return the lab of a virtual node of Flower's simulation engine."""
    return open_labs(folder)[int(str(context.node_config["partition-id"]))]


def _write(path: Path, arrays: Sequence[np.ndarray]) -> None:
    first = arrays[0]
    total = sum(len(array) for array in arrays)
    whole = open_memmap(path, "w+", dtype=first.dtype, shape=(total, *first.shape[1:]))
    begin = 0
    for array in arrays:
        whole[begin : begin + len(array)] = array
        begin += len(array)
    whole.flush()


def _parts(labs: Sequence[dict[str, Any]], arrays: dict[str, np.ndarray]) -> Iterator[Specimens]:
    """Cut the arrays into the parts of each lab: training, then held-out."""
    begin = 0
    for lab in labs:
        for part in ("training", "held_out"):
            ids = tuple(lab[part])
            rows = slice(begin, begin + len(ids))
            cut = {name: np.asarray(array[rows]) for name, array in arrays.items()}
            yield Specimens(lab=lab["name"], ids=ids, **cut)
            begin = rows.stop
