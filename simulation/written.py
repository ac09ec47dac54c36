"""Flower records on their way from one side to the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
from flwr.app import ArrayRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict

from common.records import HeldArray, array_record

NUMBERS = {"float32", "float64", "int64"}
"""Arrays of these are their bytes; what else a lab may come up with goes through Flower's."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """A record as it lies between two machines: many may read it, and no one changes it.

    Arrays as this project writes them are a copy of their bytes. The rest, and arrays that a lab
    wrote in another way, are Flower's own bytes.

    Attributes
    ----------
    arrays : dict of str to dict of str to ndarray
        Read-only.
    others : bytes
    keys : tuple of str
    """

    arrays: dict[str, dict[str, np.ndarray]]
    others: bytes
    keys: tuple[str, ...]

    @classmethod
    def of(cls, record: RecordDict) -> Written:
        """Write a record.

        Examples
        --------
        >>> sent = np.ones(2, dtype=np.float32)
        >>> written = Written.of(RecordDict({"arrays": array_record({"bias": sent})}))
        >>> sent[:] = 7
        >>> written.read()["arrays"]["bias"].numpy()
        array([1., 1.], dtype=float32)
        """
        arrays = {key: _frozen(part) for key, part in record.items() if _is_held(part)}
        others = RecordDict({key: part for key, part in record.items() if key not in arrays})
        return cls(
            arrays=arrays,
            others=recorddict_to_proto(others).SerializeToString(),
            keys=tuple(record),
        )

    def read(self) -> RecordDict:
        """Return the record, whose every part is the reader's own."""
        found = recorddict_from_proto(ProtoRecordDict.FromString(self.others))
        if not self.arrays:
            return found
        arrays = self.arrays
        return RecordDict(
            {key: array_record(arrays[key]) if key in arrays else found[key] for key in self.keys}
        )


def _is_held(part: object) -> TypeGuard[ArrayRecord]:
    return isinstance(part, ArrayRecord) and all(
        type(array) is HeldArray and array.dtype in NUMBERS for array in part.values()
    )


def _frozen(part: ArrayRecord) -> dict[str, np.ndarray]:
    frozen = {}
    for name, array in part.items():
        frozen[name] = array.numpy()
        frozen[name].flags.writeable = False
    return frozen
