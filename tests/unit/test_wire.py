"""Messages on the wire: the same when read, and an error of ours for whatever else comes."""

import re
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from grpc_tools import protoc
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ReplyError
from common.link_pb2 import Content, Record, Tensor, Value, Values
from common.records import HeldArray
from common.wire import from_content, to_content

COMMON = Path(__file__).parents[2] / "common"


def test_what_is_read_is_what_was_written() -> None:
    record = RecordDict(
        {
            "arrays": ArrayRecord(
                {
                    "b": Array(np.arange(6, dtype=np.float32).reshape(2, 3).T),
                    "a": Array(np.array(1.5)),
                    "none": Array(np.zeros((0, 4), dtype=np.int64)),
                }
            ),
            "metrics": MetricRecord({"num-examples": 2**40, "train-loss": 0.1}),
            "config": ConfigRecord({"lab": "Köln", "targets": ["a", "b"], "yes": True}),
        }
    )
    sent = Content.FromString(to_content(record).SerializeToString())
    found = from_content(sent, ReplyError)
    assert list(found) == ["arrays", "metrics", "config"]
    assert list(found.array_records["arrays"]) == ["b", "a", "none"]
    for name, array in record.array_records["arrays"].items():
        read = found.array_records["arrays"][name].numpy()
        assert read.dtype == array.numpy().dtype
        np.testing.assert_array_equal(read, array.numpy())
    assert dict(found.metric_records["metrics"]) == {"num-examples": 2**40, "train-loss": 0.1}
    assert dict(found.config_records["config"]) == dict(record.config_records["config"])


def tensors(*made: Tensor) -> Content:
    content = Content()
    content.records.add(key="arrays").arrays.tensors.extend(made)
    return content


GOOD = Tensor(name="a", dtype=Tensor.FLOAT32, shape=[2], data=bytes(8))


@pytest.mark.parametrize(
    "content",
    [
        tensors(Tensor(name="a", dtype=Tensor.FLOAT32, shape=[3], data=bytes(8))),
        tensors(Tensor(name="a", dtype=Tensor.FLOAT64, shape=[2], data=bytes(8))),
        tensors(Tensor(name="a", dtype=Tensor.FLOAT32, shape=[2**31, 2**31], data=bytes(8))),
        tensors(Tensor(name="a", shape=[2], data=bytes(8))),
        tensors(Tensor(name="a", dtype=Tensor.FLOAT32, shape=[1] * 9, data=bytes(4))),
        tensors(GOOD, GOOD),
        Content(records=[Record(key="x")]),
        Content(records=[tensors(GOOD).records[0], tensors(GOOD).records[0]]),
        Content(records=[Record(key="m", metrics=Values(values=[Value(name="a", text="no")]))]),
        Content(records=[Record(key="m", metrics=Values(values=[Value(name="a", truth=True)]))]),
        Content(records=[Record(key="m", settings=Values(values=[Value(name="a")]))]),
    ],
)
def test_what_is_not_what_it_declares_is_refused(content: Content) -> None:
    with pytest.raises(ReplyError) as caught:
        from_content(content, ReplyError)
    # others read it: it names nothing that the other side has named
    assert "'" not in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.builds(
            Record,
            key=st.text(max_size=3),
            arrays=st.builds(
                lambda made: {"tensors": made},
                st.lists(
                    st.builds(
                        Tensor,
                        name=st.text(max_size=2),
                        dtype=st.sampled_from(Tensor.Dtype.values()),
                        shape=st.lists(st.integers(0, 2**32 - 1), max_size=3),
                        data=st.binary(max_size=24),
                    ),
                    max_size=2,
                ),
            ),
        ),
        max_size=3,
    )
)
def test_rubbish_is_read_or_refused_and_nothing_else(records: list[Record]) -> None:
    try:
        from_content(Content(records=records), ReplyError)
    except ReplyError as error:
        assert re.search(r"(array|record|value) \d+", str(error))


def test_the_generated_modules_are_those_of_the_schema(tmp_path: Path) -> None:
    """`make proto` writes them; whoever edits the schema runs it."""
    root = COMMON.parent
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    assert protoc.main(["protoc", f"-I{root}", *outputs, str(COMMON / "link.proto")]) == 0
    for name in ("link_pb2.py", "link_pb2.pyi", "link_pb2_grpc.py"):
        assert (tmp_path / "common" / name).read_text() == (COMMON / name).read_text()


def test_an_array_that_is_held_is_to_flower_what_its_own_is() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    held, own = HeldArray(values), Array(values)
    assert (held.dtype, held.shape, held.stype, held.data) == (
        own.dtype,
        own.shape,
        own.stype,
        own.data,
    )
    assert held.deflate() == own.deflate()
    assert held.object_id == own.object_id
    assert held.children.keys() == own.children.keys()
    # what is read from it may be written to, and changes nothing
    held.numpy()[:] = 7
    np.testing.assert_array_equal(held.numpy(), values)
