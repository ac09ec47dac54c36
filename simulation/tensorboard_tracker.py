"""A run for TensorBoard: event files in a folder, a curve for each fold.

``tensorboard --logdir RUN`` shows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from common.round_log import RoundLine
from simulation.tracking import Error, Setting, scalars

FOLDER, WHOLE = "tensorboard", "run"


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
        self._writers: dict[str, SummaryWriter] = {}
        self._writer(WHOLE)

    def round(self, line: RoundLine) -> None:
        """Write a round; folds are curves of their own in one chart."""
        writer = self._writer(WHOLE if line.fold is None else f"fold-{line.fold}")
        for name, value in scalars(line).items():
            writer.add_scalar(f"round/{name}", value, line.server_round)

    def finished(self, errors: Sequence[Error]) -> None:
        """Write the errors, and the settings beside them as hyperparameters."""
        found = {
            f"{name}/{error.mode}/{error.target}{f' ({error.unit})' if name != 'r2' else ''}": value
            for error in errors
            for name, value in error.values().items()
        }
        writer = self._writer(WHOLE)
        for summary in hparams(self._settings, found):
            writer.file_writer.add_summary(summary)
        for name, value in found.items():
            writer.add_scalar(name, value)

    def close(self) -> None:
        """Write what is still in memory."""
        for writer in self._writers.values():
            writer.close()

    def _writer(self, name: str) -> SummaryWriter:
        if name not in self._writers:
            self._writers[name] = SummaryWriter(str(self._folder / name))
        return self._writers[name]
