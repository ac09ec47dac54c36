"""Log lines of a service: one a line, for people or as JSON for machines, on standard error."""

from __future__ import annotations

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

OURS = ("client", "common", "server")

STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LineFormatter(logging.Formatter):
    """Time, level, message, and whatever was passed as ``extra``, as ``key=value``.

    Examples
    --------
    >>> record = logging.makeLogRecord({"msg": "a lab has come", "levelname": "INFO", "lab": "x"})
    >>> LineFormatter().format(record)[20:]
    'INFO a lab has come lab=x'
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        extra = {k: v for k, v in vars(record).items() if k not in STANDARD}
        return " ".join([super().format(record), *(f"{k}={v}" for k, v in extra.items())])


def configure_logs(*, as_json: bool) -> None:
    """Send crossply's own log to standard error; of other libraries, warnings alone.

    Parameters
    ----------
    as_json : bool
        One JSON object a line: ``time``, ``level``, ``logger``, ``message`` and what belongs to it.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter(
            "{asctime}{levelname}{name}{message}",
            style="{",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        )
        if as_json
        else LineFormatter()
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    # Flower has a handler of its own, and tells of every round
    flower = logging.getLogger("flwr")
    flower.handlers = []
    flower.propagate = True
    flower.setLevel(logging.WARNING)
