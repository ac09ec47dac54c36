"""What a lab does with tasks that are no task of ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp

from client.answering import Answerer
from client.gate import Gate
from client.policy import Policy
from client.sent_log import SentLog
from common.federation import Federation
from common.head import federation_shapes
from common.link_pb2 import Task
from common.messages import EVALUATE, RELEASE, ModelRequest, ReleaseRequest, Terms
from common.provenance import Provenance
from common.standardise import Standardiser
from common.wire import to_content

FEDERATION = Federation.model_validate(
    {
        "name": "test",
        "targets": {"strength": {"unit": "MPa", "range": [0, 200]}},
        "imaging": {"scale": "fit"},
        "backbone": {"name": "resnet18"},
    }
)


def answerer(path: Path) -> Answerer:
    sent = SentLog(path)
    return Answerer(
        app=ClientApp(),
        context=Context(1, 2, {}, RecordDict(), {}),
        gate=Gate(federation=FEDERATION, lab="celle", policy=Policy(), log=sent),
        sent=sent,
    )


@pytest.mark.parametrize(
    "task",
    [
        Task(message_id="0" * 3_000_000, message_type="train"),
        Task(message_id="0" * 64, message_type="query." + "x" * 3_000_000),
    ],
)
def test_a_coordinator_cannot_fill_a_labs_disk_with_names(tmp_path: Path, task: Task) -> None:
    path = tmp_path / "sent.jsonl"
    reply = answerer(path).answer(task)
    assert (reply.error, len(reply.message_id)) == ("request", 64)
    assert not path.exists()


def test_a_type_that_is_none_is_refused_and_written_down(tmp_path: Path) -> None:
    path = tmp_path / "sent.jsonl"
    reply = answerer(path).answer(Task(message_id="0" * 64, message_type="query.rows"))
    assert reply.error == "request"
    assert "query.rows" in path.read_text()


def model(weight: float) -> ModelRequest:
    shapes = federation_shapes(FEDERATION)
    ones = np.ones(FEDERATION.num_features)
    return ModelRequest(
        terms=Terms.of(FEDERATION),
        head={name: np.full(shape, weight, dtype=np.float32) for name, shape in shapes.items()},
        standardiser=Standardiser(
            feature_mean=ones,
            feature_scale=ones,
            feature_weight=ones,
            target_mean=ones[:1],
            target_scale=ones[:1],
        ),
    )


def evaluation(weight: float) -> Task:
    """A task under one and the same id, whatever head it holds."""
    content = to_content(model(weight).to_record())
    return Task(message_id="0" * 64, message_type=EVALUATE, content=content)


def test_one_id_for_two_heads_is_two_evaluations(tmp_path: Path) -> None:
    lab = answerer(tmp_path / "sent.jsonl")
    # this lab's app answers nothing, and what fails counts too
    assert lab.answer(evaluation(0.0)).error == "internal"
    assert lab.answer(evaluation(0.5)).error == "policy"
    assert lab.answer(evaluation(0.0)).error == "internal"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        # this lab's app answers nothing
        ("iws-dresden", "internal"),
        ("unnamed lab 12", "internal"),
        ("unnamed lab 0", "request"),
        ("unnamed lab of aachen", "request"),
        ("crossply is out of date. Run: curl https://example.org/fix.sh", "request"),
        ("a" * 41, "request"),
        ("Dresden", "request"),
    ],
)
def test_names_of_labs_in_a_card_are_such_as_enrolment_gives(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, error: str
) -> None:
    told = Provenance(
        labs=("aachen", name),
        num_examples=np.ones(2),
        left_out_count=np.zeros((2, 1)),
        left_out_squared=np.zeros((2, 1)),
    )
    content = to_content(ReleaseRequest(model=model(0.0), provenance=told).to_record())
    task = Task(message_id="0" * 64, message_type=RELEASE, content=content)
    assert answerer(tmp_path / "sent.jsonl").answer(task).error == error
    assert error == "internal" or "labs: 1 of 2 are no names of enrolled labs" in caplog.text
    assert "curl" not in caplog.text
