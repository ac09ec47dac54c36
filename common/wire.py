"""Flower records as they travel over the link: protobuf with declared dtypes and shapes.

Tensors are raw little-endian bytes. Every declaration is checked before a byte is used, and
nothing is unpickled. What a record must hold is checked later, by `common.messages`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from common.errors import CrossplyError
from common.link_pb2 import Arrays, Content, Record, Tensor, Texts, Value, Values
from common.records import array_record

DTYPES = {Tensor.FLOAT32: "<f4", Tensor.FLOAT64: "<f8", Tensor.INT64: "<i8"}
KINDS = {np.dtype(dtype): kind for kind, dtype in DTYPES.items()}

MAX_DIMENSIONS = 8


def to_content(record: RecordDict) -> Content:
    """Return a Flower record as a protobuf message.

    Raises
    ------
    TypeError
        If it holds a value or a dtype that no message of ours has.

    Examples
    --------
    >>> bias = array_record({"bias": np.zeros(2, dtype=np.float32)})
    >>> content = to_content(RecordDict({"arrays": bias}))
    >>> len(content.records[0].arrays.tensors[0].data)
    8
    >>> from_content(content, CrossplyError)["arrays"]["bias"].numpy()
    array([0., 0.], dtype=float32)
    """
    records = []
    for key, value in record.items():
        if isinstance(value, ArrayRecord):
            tensors = [_to_tensor(name, array.numpy()) for name, array in value.items()]
            records.append(Record(key=key, arrays=Arrays(tensors=tensors)))
        elif isinstance(value, MetricRecord):
            records.append(Record(key=key, metrics=_to_values(value)))
        else:
            records.append(Record(key=key, settings=_to_values(value)))
    return Content(records=records)


def from_content(content: Content, error: type[CrossplyError]) -> RecordDict:
    """Return the Flower record that a protobuf message holds.

    Parameters
    ----------
    content : Content
    error : type of CrossplyError
        Raised if a tensor's bytes are not what its dtype and shape declare, if a name comes
        twice, or if something is of no known kind: ReplyError where labs are read, RequestError
        where the coordinator is. It says which by number: names of the other side are not repeated.
    """
    found = RecordDict()
    for number, record in enumerate(content.records, start=1):
        if record.key in found:
            raise error(f"record {number} has the name of one before it")
        kind = record.WhichOneof("kind")
        if kind == "arrays":
            found[record.key] = array_record(_from_tensors(record.arrays, error))
        elif kind == "metrics":
            found[record.key] = _metrics(_from_values(record.metrics, error), error)
        elif kind == "settings":
            found[record.key] = ConfigRecord(_from_values(record.settings, error))
        else:
            raise error(f"record {number} is of no known kind")
    return found


def _to_tensor(name: str, array: np.ndarray) -> Tensor:
    kind = KINDS.get(array.dtype.newbyteorder("<"))
    if kind is None:
        raise TypeError(f"{name}: no message of ours has the dtype {array.dtype}")
    data = np.ascontiguousarray(array, dtype=DTYPES[kind]).tobytes()
    return Tensor(name=name, dtype=kind, shape=array.shape, data=data)


def _from_tensors(arrays: Arrays, error: type[CrossplyError]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for number, tensor in enumerate(arrays.tensors, start=1):
        dtype = DTYPES.get(tensor.dtype)
        if dtype is None or tensor.name in found or len(tensor.shape) > MAX_DIMENSIONS:
            raise error(
                f"array {number}: of no known dtype, comes twice, or has too many dimensions"
            )
        declared = prod(tensor.shape) * np.dtype(dtype).itemsize
        if declared != len(tensor.data):
            raise error(f"array {number}: {len(tensor.data)} bytes where {declared} are declared")
        try:
            native = np.frombuffer(tensor.data, dtype=dtype).reshape(tuple(tensor.shape))
        except ValueError as reason:
            # no bytes, and a shape of zero elements that is larger than any array
            raise error(f"array {number}: no array has this shape") from reason
        found[tensor.name] = native.astype(native.dtype.newbyteorder("="), copy=False)
    return found


def _to_values(record: Mapping[str, Any]) -> Values:
    return Values(values=[_to_value(name, value) for name, value in record.items()])


def _to_value(name: str, value: Any) -> Value:
    if isinstance(value, bool):
        return Value(name=name, truth=value)
    if isinstance(value, int):
        return Value(name=name, integer=value)
    if isinstance(value, float):
        return Value(name=name, number=value)
    if isinstance(value, str):
        return Value(name=name, text=value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return Value(name=name, texts=Texts(texts=value))
    raise TypeError(f"{name}: no message of ours has a {type(value).__name__}")


def _from_values(values: Values, error: type[CrossplyError]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, value in enumerate(values.values, start=1):
        kind = value.WhichOneof("kind")
        if kind is None or value.name in found:
            raise error(f"value {number}: of no known kind, or comes twice")
        content = getattr(value, kind)
        found[value.name] = list(content.texts) if kind == "texts" else content
    return found


def _metrics(values: dict[str, Any], error: type[CrossplyError]) -> MetricRecord:
    for number, value in enumerate(values.values(), start=1):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise error(f"value {number} of some metrics is no number")
    return MetricRecord(values)
