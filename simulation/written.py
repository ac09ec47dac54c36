"""Flower records on their way from one side to the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict

from common.records import HeldArray, Part, array_record, record_of

NUMBERS = {"float32", "float64", "int64"}
"""Arrays of these are their bytes."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """A record as it lies between two machines: many may read it, and no one changes it.

    Arrays as this project writes them are a copy of their bytes, and a value that is written and
    read as itself stays as it is. What else a lab may come up with is Flower's own bytes.

    Attributes
    ----------
    arrays : dict of str to dict of str to ndarray
        Read-only.
    values : dict of str to MetricRecord or ConfigRecord
    others : bytes
    keys : tuple of str
    """

    arrays: dict[str, dict[str, np.ndarray]]
    values: dict[str, MetricRecord | ConfigRecord]
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
        parts = record.items()
        arrays = {key: _frozen(part) for key, part in parts if _is_held(part)}
        values = {key: part.copy() for key, part in parts if _is_plain(part)}
        others = {k: part for k, part in parts if k not in arrays and k not in values}
        return cls(
            arrays=arrays,
            values=values,
            others=recorddict_to_proto(RecordDict(others)).SerializeToString() if others else b"",
            keys=tuple(record),
        )

    def read(self) -> RecordDict:
        """Return the record, whose every part is the reader's own."""
        found: dict[str, Part] = {key: array_record(held) for key, held in self.arrays.items()}
        found |= {key: part.copy() for key, part in self.values.items()}
        if self.others:
            found |= recorddict_from_proto(ProtoRecordDict.FromString(self.others))
        return record_of({key: found[key] for key in self.keys})


def _is_plain(part: Part) -> TypeGuard[MetricRecord | ConfigRecord]:
    return isinstance(part, MetricRecord | ConfigRecord) and all(
        map(_is_same_when_read, (*part.keys(), *part.values()))
    )


def _is_same_when_read(value: object) -> bool:
    """Return whether a value is written and read as itself, and cannot be changed.

    Examples
    --------
    >>> [_is_same_when_read(value) for value in (0.1, "text", 7, 2**70, [1], np.float64(1))]
    [True, True, True, False, False, False]
    """
    if type(value) is int:
        return -(2**63) <= value < 2**63
    return type(value) in (float, bool) or (type(value) is str and value.isascii())


def _is_held(part: Part) -> TypeGuard[ArrayRecord]:
    return isinstance(part, ArrayRecord) and all(
        type(array) is HeldArray and array.dtype in NUMBERS for array in part.values()
    )


def _frozen(part: ArrayRecord) -> dict[str, np.ndarray]:
    frozen = {}
    for name, array in part.items():
        frozen[name] = array.numpy()
        frozen[name].flags.writeable = False
    return frozen
