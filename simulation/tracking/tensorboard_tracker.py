"""A run for TensorBoard: event files in a folder, a curve for each fold.

``tensorboard --logdir RUN`` shows them. TensorBoard's own record writer writes them, here and now:
`torch.utils.tensorboard.SummaryWriter` does so in a thread, whose traceback on a full disk nobody
asked for, and puts the host's name into the names of files.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import hparams, scalar

from common.round_log import RoundLine
from simulation.tracking.trackers import Error, Setting, scalars

FOLDER, WHOLE = "tensorboard", "run"

FORMAT = "brain.Event:2"


class TensorBoardTracker:
    """Writes event files.

    Parameters
    ----------
    folder : Path
        The run's own.
    settings : mapping of str to Setting
        Written at the end, beside the errors that they led to.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Setting]) -> None:
        self._folder = folder / FOLDER
        self._settings = dict(settings)
        self._files: dict[str, RecordWriter] = {}
        self._file(WHOLE)

    def round(self, line: RoundLine) -> None:
        """Write a round; folds are curves of their own in one chart."""
        file = self._file(WHOLE if line.fold is None else f"fold-{line.fold}")
        for name, value in scalars(line).items():
            _write(file, scalar(f"round/{name}", value), line.server_round)

    def finished(self, errors: Sequence[Error]) -> None:
        """Write the errors, and the settings beside them as hyperparameters."""
        found = {
            f"{name}/{error.mode}/{error.target}{f' ({error.unit})' if name != 'r2' else ''}": value
            for error in errors
            for name, value in error.values().items()
        }
        file = self._file(WHOLE)
        for summary in hparams(self._settings, found):
            _write(file, summary, 0)
        for name, value in found.items():
            _write(file, scalar(name, value), 0)

    def close(self) -> None:
        """Close the files; all of it lies in them."""
        with ExitStack() as closing:
            for file in self._files.values():
                closing.callback(file.close)

    def _file(self, name: str) -> RecordWriter:
        if name not in self._files:
            folder = self._folder / name
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"events.out.tfevents.{time.time_ns()}"
            self._files[name] = RecordWriter(path.open("xb"))
            _write_event(self._files[name], Event(wall_time=time.time(), file_version=FORMAT))
        return self._files[name]


def _write(file: RecordWriter, summary: Summary, step: int) -> None:
    _write_event(file, Event(wall_time=time.time(), step=step, summary=summary))


def _write_event(file: RecordWriter, event: Event) -> None:
    file.write(event.SerializeToString())
    file.flush()
