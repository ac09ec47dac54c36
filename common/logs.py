"""Log lines of a service: one a line, for people or as JSON for machines, on standard error."""

from __future__ import annotations

import json
import logging
import sys
import time
from contextlib import suppress
from typing import Any

from pythonjsonlogger.json import JsonFormatter

OURS = ("client", "common", "server")

STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

UTC = "%Y-%m-%dT%H:%M:%SZ"
"""Labs lie in different time zones, and compare their logs."""


class LineFormatter(logging.Formatter):
    r"""Time, level, message, and whatever was passed as ``extra``, as ``key=value``.

    What comes from another side may hold anything: it is escaped, and cannot begin a line.

    Examples
    --------
    >>> record = logging.makeLogRecord({"msg": "a lab has\ncome", "levelname": "INFO", "lab": "x"})
    >>> LineFormatter().format(record)[21:]
    'INFO a lab has\\ncome lab=x'
    """

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s", datefmt=UTC)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line, without a traceback."""
        extra = {key: value for key, value in vars(record).items() if key not in STANDARD}
        pairs = [f"{key}={_word(value)}" for key, value in extra.items()]
        head = [super().formatMessage(record), record.levelname, _escaped(record.message)]
        return " ".join([*head, *pairs])


class _Handler(logging.StreamHandler):
    """Writes lines, and never stops the work for one that it cannot write."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        where = f"{record.filename}:{record.lineno}"
        told = {"name": record.name, "levelname": record.levelname, "where": where}
        lost = logging.makeLogRecord(told | {"msg": "a log line could not be made"})
        with suppress(Exception):
            self.stream.write(self.format(lost) + self.terminator)


def configure_logs(*, as_json: bool) -> None:
    """Send crossply's own log to standard error; of other libraries, warnings alone.

    To be called when Flower is imported already, which gives its logger a level and a handler.

    Parameters
    ----------
    as_json : bool
        One JSON object a line: ``time``, ``level``, ``logger``, ``message`` and what belongs to it.
    """
    handler = _Handler(sys.stderr)
    handler.setFormatter(_json_formatter() if as_json else LineFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    # Flower tells of every round
    flower = logging.getLogger("flwr")
    flower.handlers = []
    flower.propagate = True
    flower.setLevel(logging.WARNING)


def _json_formatter() -> JsonFormatter:
    formatter = JsonFormatter(
        "{asctime}{levelname}{name}{message}",
        style="{",
        datefmt=UTC,
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
    )
    formatter.converter = time.gmtime
    return formatter


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _word(value: Any) -> str:
    text = str(value)
    return text if text.isprintable() and not set(text) & set(' "=') else json.dumps(text)
