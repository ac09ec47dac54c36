"""A run for MLflow: a database in the run's folder, or where ``MLFLOW_TRACKING_URI`` says.

``mlflow ui --backend-store-uri sqlite:///RUN/mlflow.db`` shows the one in the folder.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.round_log import RoundLine
from simulation.tracking.trackers import Error, Setting, scalars

DATABASE = "mlflow.db"

AT_ONCE = 100
"""MLflow takes so many parameters in one request, and ten times as many metrics."""

FLUSH_S = 2.0
"""A request for each round would cost more than the round."""


class MlflowTracker:
    """Writes one MLflow run.

    Parameters
    ----------
    folder : Path
        The run's own.
    experiment : str
        The federation's name.
    settings : mapping of str to Setting
    """

    def __init__(self, folder: Path, experiment: str, settings: Mapping[str, Setting]) -> None:
        _be_quiet()
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._folder = folder.absolute()
        self._where = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = MlflowClient(self._where or f"sqlite:///{self._folder / DATABASE}")
        self._waiting: list[Any] = []
        self._flushed = time.monotonic()
        self._status = "FAILED"
        # not mlflow.start_run, which notes the user, paths of this machine and the state of git
        run = self._client.create_run(self._experiment(experiment), run_name=folder.name)
        self._run = run.info.run_id
        params = [Param(_key(name), str(value)) for name, value in settings.items()]
        for begin in range(0, len(params), AT_ONCE):
            self._client.log_batch(self._run, params=params[begin : begin + AT_ONCE])
        self._answers = True

    def round(self, line: RoundLine) -> None:
        """Keep a round, to be written within seconds."""
        fold = "" if line.fold is None else f"fold {line.fold}/"
        for name, value in scalars(line).items():
            self._note(f"{fold}{name}", value, line.server_round)
        if time.monotonic() - self._flushed > FLUSH_S or len(self._waiting) >= 10 * AT_ONCE - 3:
            self._flush()

    def finished(self, errors: Sequence[Error]) -> None:
        """Write the errors; units stand among the parameters."""
        for error in errors:
            for name, value in error.values().items():
                self._note(f"{name}/{error.mode}/{error.target}", value, 0)
        self._status = "FINISHED"

    def close(self) -> None:
        """Write what is left, and end the run; a server that does not answer is not asked again."""
        if self._answers:
            self._flush()
            self._client.set_terminated(self._run, self._status)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        # MLflow would note its working directory
        where = None if self._where else (self._folder / "mlflow-artifacts").as_uri()
        return str(self._client.create_experiment(name, artifact_location=where))

    def _note(self, name: str, value: float, step: int) -> None:
        from mlflow.entities import Metric

        self._waiting.append(Metric(_key(name), value, int(time.time() * 1000), step))

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._answers = False
        for begin in range(0, len(waiting), 10 * AT_ONCE):
            self._client.log_batch(self._run, metrics=waiting[begin : begin + 10 * AT_ONCE])
        self._answers = True
        self._flushed = time.monotonic()


def _be_quiet() -> None:
    """Let MLflow report nothing of its own use, say nothing, and give up on a server in seconds."""
    # read when it is imported
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    import mlflow

    # it makes its tables aloud, and tells of an error that is raised too
    for name in (mlflow.__name__, "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _key(name: str) -> str:
    """Return a name of the characters that MLflow takes.

    Examples
    --------
    >>> _key("rmse/federated/strength (MPa)")
    'rmse/federated/strength _MPa_'
    """
    return "".join(c if c.isalnum() or c in "_-. :/" else "_" for c in name)
