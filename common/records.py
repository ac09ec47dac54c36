"""Flower records written and read with checks: keys, dtypes, shapes, and finite values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from functools import cache
from math import isfinite
from typing import Any, TypeAlias, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.app.message.typeddict import TypedDict

from common.errors import CrossplyError

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]

Part: TypeAlias = ArrayRecord | ConfigRecord | MetricRecord

T = TypeVar("T", bound=TypedDict[Any, Any])
P = TypeVar("P", ArrayRecord, MetricRecord)


class HeldArray(Array):
    """Flower's array over memory that is there already; its bytes are made when they are asked for.

    Flower's own writes a .npy file when it is made and reads it at each use, which takes longer
    than all else that a round over the link does. This one copies memory at each use.

    Examples
    --------
    >>> held = HeldArray(np.ones(2, dtype=np.float32))
    >>> held.numpy(), held.data == Array(np.ones(2, dtype=np.float32)).data
    (array([1., 1.], dtype=float32), True)
    """

    _held: np.ndarray

    def __init__(self, ndarray: np.ndarray) -> None:
        # Flower watches each attribute that is set, so as to forget bytes that it has made
        self.__dict__.update(
            dtype=_name(ndarray.dtype),
            shape=ndarray.shape,
            stype="numpy.ndarray",
            _held=ndarray,
        )

    @property
    def held(self) -> np.ndarray:
        """The memory itself, not to be written to."""
        view = self._held.view()
        view.flags.writeable = False
        return view

    def numpy(self) -> np.ndarray:
        """Return a copy, which may be written to."""
        return self._held.copy()

    def deflate(self) -> bytes:
        """Return what Flower's engine stores, which goes by the name of the class."""
        return Array(self._held).deflate()

    def __getattr__(self, name: str) -> Any:
        """Return the bytes of a .npy file as `data`; Flower sends those."""
        if name == "data":
            return Array(self._held).data
        raise AttributeError(name)


@cache
def _name(dtype: np.dtype) -> str:
    return str(dtype)


def array_record(arrays: Mapping[str, np.ndarray]) -> ArrayRecord:
    """Return named arrays as a Flower record.

    Examples
    --------
    >>> array_record({"bias": np.zeros(2, dtype=np.float32)})["bias"].shape
    (2,)
    """
    # made of a dictionary, a record would write each array out
    held = {name: HeldArray(np.ascontiguousarray(array)) for name, array in arrays.items()}
    return _filled(ArrayRecord(), held)


def metric_record(numbers: Mapping[str, int | float]) -> MetricRecord:
    """Return named numbers as a Flower record."""
    return _filled(MetricRecord(), numbers)


def record_of(parts: Mapping[str, Part]) -> RecordDict:
    """Return named records as one."""
    return _filled(RecordDict(), parts)


def read_only(parts: Mapping[str, Part]) -> RecordDict:
    """Return named records as one, for who only reads it."""
    return _filled(ReadDict(), parts)


def _filled(record: T, values: Mapping[str, Any]) -> T:
    # Flower checks each pair that is set, and makes an object of Python's typing for it: of a round
    # of many labs that takes longer than all else that is done to messages
    record.__dict__["_data"].update(values)
    return record


class ReadDict(RecordDict):
    """Flower's record of records, for who only reads it, as strategies do.

    Flower's own finds arrays and numbers as views that write through: each is a cycle, which holds
    the arrays until Python searches for it, and a strategy asks for five of them a lab.
    """

    @property
    def array_records(self) -> TypedDict[str, ArrayRecord]:
        """Its records of arrays."""
        return self._only(ArrayRecord)

    @property
    def metric_records(self) -> TypedDict[str, MetricRecord]:
        """Its records of numbers."""
        return self._only(MetricRecord)

    def _only(self, kind: type[P]) -> TypedDict[str, P]:
        found = {key: part for key, part in self.items() if isinstance(part, kind)}
        # made as a TypedDict[str, P], it would cost as much as a view
        plain: TypedDict[str, P] = TypedDict(_anything, _anything)
        return _filled(plain, found)


def _anything(key_or_value: object) -> None:
    """Let it in."""


def vectors(names: Iterable[str], length: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of some vectors of one length."""
    return dict.fromkeys(names, (length,))


class RecordReader:
    """Reads a record from the other side; whatever breaks the schema raises one kind of error.

    Its sentence reaches others, in a record of rounds or on a page: it quotes numbers that the
    other side wrote, and no text.

    Parameters
    ----------
    record : RecordDict
    error : type of CrossplyError
        ReplyError where labs are read, RequestError where the coordinator is.
    """

    def __init__(self, record: RecordDict, error: type[CrossplyError]) -> None:
        self._record = record
        self._error = error

    def arrays(
        self,
        key: str,
        shapes: Shapes,
        dtype: str,
        *,
        to_write: bool = True,
        has_gaps: bool = False,
    ) -> dict[str, np.ndarray]:
        """Return the arrays under `key`: exactly these names, shapes and dtype, all finite.

        Where they are not `to_write`, they may be the message's own memory. Where it `has_gaps`,
        NaN stands for what is not told.
        """
        record = self._record.get(key)
        if not isinstance(record, ArrayRecord) or set(record) != set(shapes):
            arrays = _found(record if isinstance(record, ArrayRecord) else None, shapes)
            raise self._error(f"{key}: expected the arrays {sorted(shapes)}, {arrays}")
        found = {}
        for name, shape in shapes.items():
            one = record[name]
            if isinstance(one, HeldArray) and not to_write:
                array = one.held
            else:
                array = self._read(one, name)
            self._check(array, name, shape, dtype)
            self._require_finite(array[~np.isnan(array)] if has_gaps else array, name)
            found[name] = array
        return found

    def columns(self, key: str, name: str, most: int) -> int:
        """Return how many columns a matrix says that it has: from 1 to `most`."""
        record = self._record.get(key)
        shape: tuple[int, ...] = ()
        if isinstance(record, ArrayRecord) and name in record:
            shape = tuple(record[name].shape)
        if len(shape) != 2 or not 1 <= shape[1] <= most:
            raise self._error(f"{key}: expected a matrix {name} of 1 to {most} columns")
        return int(shape[1])

    def _read(self, array: Array, name: str) -> np.ndarray:
        try:
            return array.numpy()
        except Exception as error:
            # NumPy's reader raises ValueError, EOFError, SyntaxError, ... on rubbish
            raise self._error(f"{name}: not the bytes of an array") from error

    def _check(self, array: np.ndarray, name: str, shape: tuple[int, ...], dtype: str) -> None:
        if array.shape != shape or _name(array.dtype) != dtype:
            raise self._error(
                f"{name}: expected {dtype} of shape {shape}, "
                f"found {array.dtype.name} of shape {array.shape}"
            )

    def _require_finite(self, array: np.ndarray, name: str) -> None:
        # a sum of squares is found at the speed of memory, and finite where all numbers are small
        if not isfinite(np.vdot(array, array)) and not np.isfinite(array).all():
            raise self._error(f"{name}: holds NaN or infinity")

    def config(self, key: str) -> Values:
        """Return the settings under `key`."""
        record = self._record.get(key)
        if not isinstance(record, ConfigRecord):
            raise self._error(f"{key}: expected a record of settings, found none")
        return Values(record, self._error)

    def metrics(self, key: str, names: set[str], optional: Set[str] = frozenset()) -> Values:
        """Return the metrics under `key`: the only ones there are, with these names and no more."""
        # Flower's own view of a record's kinds is made anew each time, at a cost
        records = {k: v for k, v in self._record.items() if isinstance(v, MetricRecord)}
        if set(records) != {key} or set(records[key]) - optional != names:
            found = _found(records.get(key), names | optional)
            others = f", and {len(records) - (key in records)} other records of numbers"
            raise self._error(f"{key}: expected the numbers {sorted(names)}, {found}{others}")
        return Values(records[key], self._error)


class Values:
    """Scalars and texts of a record, checked as they are read."""

    def __init__(self, values: Mapping[str, Any], error: type[CrossplyError]) -> None:
        self._values = values
        self._error = error

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def text(self, key: str) -> str:
        """Return a short printable text."""
        value = self._values.get(key)
        if not isinstance(value, str) or not 0 < len(value) <= 200 or not value.isprintable():
            raise self._error(f"{key}: expected a short printable text")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts."""
        value = self._values.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._error(f"{key}: expected a list of texts")
        return tuple(value)

    def names(self, key: str, most: int) -> tuple[str, ...]:
        """Return a list of at most so many short printable texts, each of them once."""
        found = self.texts(key)
        short = all(0 < len(name) <= 200 and name.isprintable() for name in found)
        if len(found) > most or not short or len(set(found)) != len(found):
            raise self._error(f"{key}: expected at most {most} different names")
        return found

    def flag(self, key: str) -> bool:
        """Return whether something is so: it is not if the key is missing."""
        value = self._values.get(key, False)
        if not isinstance(value, bool):
            raise self._error(f"{key}: expected true or false")
        return value

    def count(self, key: str) -> int:
        """Return a whole number of at least 1."""
        value = self._values.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self._error(
                f"{key}: expected a whole number of at least 1, found {_in_words(value)}"
            )
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Return a finite number, or `default` if there is one and the key is missing."""
        value = self._values.get(key, default)
        if not isinstance(value, int | float) or not np.isfinite(value):
            raise self._error(f"{key}: expected a finite number, found {_in_words(value)}")
        return float(value)


def _found(record: Mapping[str, object] | None, known: Collection[str]) -> str:
    """Say what is in a record, in words of ours: names of the other side are not repeated."""
    if record is None:
        return "found none"
    present = [name for name in sorted(known) if name in record]
    others = len(record) - len(present)
    return f"found {present} and {others} of other names"


def _in_words(value: object) -> str:
    """Return a number as it is, and of anything else that it is none.

    Examples
    --------
    >>> _in_words(0), _in_words(float("nan")), _in_words("aachen lies: revoke it")
    ('0', 'nan', 'no number')
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else "no number"
