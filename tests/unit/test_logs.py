"""Log lines as people and machines get them."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from common.logs import configure_logs

Configure: TypeAlias = Callable[..., io.StringIO]


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[Configure]:
    """Configure logs; return what is standard error to them. All is put back afterwards."""
    loggers = [logging.getLogger(name) for name in (None, "flwr", "client", "common", "server")]
    before = [(logger, logger.level, logger.handlers[:], logger.propagate) for logger in loggers]

    def configure(*, as_json: bool) -> io.StringIO:
        stderr = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stderr)
        configure_logs(as_json=as_json)
        return stderr

    yield configure
    for logger, level, handlers, propagate in before:
        logger.setLevel(level)
        logger.handlers[:], logger.propagate = handlers, propagate


def test_a_line_for_people(configured: Configure) -> None:
    stderr = configured(as_json=False)
    logging.getLogger("server.service").info("round counted", extra={"round": 3, "labs": 2})
    assert stderr.getvalue()[21:] == "INFO round counted round=3 labs=2\n"


def test_a_line_for_machines(configured: Configure) -> None:
    stderr = configured(as_json=True)
    logging.getLogger("client.link").warning("no answer from %s", "x:1", extra={"tries": 2})
    line = json.loads(stderr.getvalue())
    assert line.pop("time").startswith("20")
    assert line == {
        "level": "WARNING",
        "logger": "client.link",
        "message": "no answer from x:1",
        "tries": 2,
    }


@pytest.mark.parametrize("as_json", [False, True])
def test_what_another_side_sends_cannot_begin_a_line(configured: Configure, as_json: bool) -> None:
    stderr = configured(as_json=as_json)
    forged = "x\n2026-01-01 00:00:00 INFO a lab has come\x1b[2J"
    logging.getLogger("server").warning("refused: %s", forged, extra={"lab": forged})
    assert len(stderr.getvalue().splitlines()) == 1
    assert "\x1b" not in stderr.getvalue()


@pytest.mark.parametrize("as_json", [False, True])
def test_a_traceback_is_kept_with_its_line(configured: Configure, as_json: bool) -> None:
    stderr = configured(as_json=as_json)
    try:
        raise ValueError("a bad value")
    except ValueError:
        logging.getLogger("client.app").exception("train failed")
    assert "ValueError: a bad value" in stderr.getvalue()
    assert 'File "' in stderr.getvalue() or 'File \\"' in stderr.getvalue()


@pytest.mark.parametrize("as_json", [False, True])
def test_a_line_that_cannot_be_made_stops_nobody(configured: Configure, as_json: bool) -> None:
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError("no text")

        __repr__ = __str__

    stderr = configured(as_json=as_json)
    log = logging.getLogger("server")
    log.warning("a count: %d", "three")
    log.warning("a lab", extra={"lab": Odd()})
    log.warning("still here")
    assert "still here" in stderr.getvalue()
    stderr.close()
    log.warning("to nowhere")


def test_flower_speaks_once_and_of_warnings_alone() -> None:
    """In a process of its own, as Flower sets up its logger once, when it is imported."""
    code = (
        "from flwr.common.logger import log; from common.logs import configure_logs; "
        "configure_logs(as_json=False); log(20, 'a round'); log(30, 'a warning')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr[21:] == "WARNING a warning\n"
