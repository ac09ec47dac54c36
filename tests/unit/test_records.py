"""Flower records as this project fills and reads them, and on their way between two sides."""

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_to_proto

from common.errors import ReplyError
from common.records import (
    Part,
    RecordReader,
    array_record,
    metric_record,
    read_only,
    record_of,
)
from simulation.written import Written

BIAS = np.array([1.0, 2.0], np.float32)


def flowers_own() -> RecordDict:
    arrays = ArrayRecord({"bias": Array(BIAS)})
    return RecordDict({"arrays": arrays, "metrics": MetricRecord({"n": 3, "loss": 0.5})})


def test_a_record_that_is_filled_is_to_flower_what_its_own_is() -> None:
    parts: dict[str, Part] = {
        "arrays": array_record({"bias": BIAS}),
        "metrics": metric_record({"n": 3, "loss": 0.5}),
    }
    own = flowers_own()
    for ours in (record_of(parts), read_only(parts)):
        assert recorddict_to_proto(ours) == recorddict_to_proto(own)
        assert list(ours.array_records) == list(own.array_records) == ["arrays"]
        assert list(ours.metric_records) == list(own.metric_records) == ["metrics"]
        assert ours.metric_records["metrics"] == own["metrics"]
    assert record_of(parts).object_id == own.object_id


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_and_what_is_merely_large_is_not(value: float) -> None:
    def read(array: np.ndarray) -> None:
        record = record_of({"arrays": array_record({"bias": array})})
        RecordReader(record, ReplyError).arrays("arrays", {"bias": (2,)}, "float32")

    read(np.array([3e38, -3e38], np.float32))
    with pytest.raises(ReplyError, match="bias: holds NaN or infinity"):
        read(np.array([1.0, value], np.float32))


@pytest.mark.parametrize(
    "value", [7, -(2**63), 2**63, 0.1, float("inf"), "text", "Gerät", [1, 2], ["a"], b"bytes", True]
)
def test_a_value_is_read_as_flower_reads_it_and_is_the_readers_own(value: Any) -> None:
    config = ConfigRecord({"key": value})
    written = Written.of(RecordDict({"config": config}))
    config["key"] = "changed"
    first, second = (written.read().config_records["config"] for _ in range(2))
    assert first["key"] == value and type(first["key"]) is type(value)
    if isinstance(first["key"], list):
        first["key"].clear()
    first["more"] = 1
    assert second == {"key": value}


def test_what_flower_cannot_write_is_not_passed_on() -> None:
    with pytest.raises(ValueError, match="out of range"):
        Written.of(RecordDict({"metrics": MetricRecord({"n": 2**64})}))
    with pytest.raises(ValueError, match="surrogates"):
        Written.of(RecordDict({"config": ConfigRecord({"key": "\ud800"})}))


def test_parts_keep_their_order_whatever_way_they_go() -> None:
    record = flowers_own()
    record["settings"] = ConfigRecord({"names": ["a"]})
    record["last"] = metric_record({"n": 1})
    assert list(Written.of(record).read()) == ["arrays", "metrics", "settings", "last"]
