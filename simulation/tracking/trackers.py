"""Telling a tracker how a run goes: TensorBoard or MLflow, on request, beside ``rounds.jsonl``.

What a tracker is told is the agreement's own keys, and for each round the loss, the share of the
labs that took part and the seconds; at the end the errors of each mode. No name of a lab, no
specimen, nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, TypeAlias

from common.errors import ConfigurationError, shortened
from common.federation import Federation
from common.round_log import RoundLine

Setting: TypeAlias = str | int | float | bool

TRACKERS = {"tensorboard": "tensorboard", "mlflow": "mlflow"}
"""Name of each tracker, which is that of its extra too, and the module that it needs."""


@dataclass(frozen=True, kw_only=True)
class Error:
    """How far a mode's predictions of held-out specimens are from what was measured.

    Attributes
    ----------
    mode, target : str
    unit : str
        Of `rmse` and `mae`.
    rmse, mae, r2 : float or None
        None where there is no prediction.
    """

    mode: str
    target: str
    unit: str
    rmse: float | None
    mae: float | None
    r2: float | None

    def values(self) -> dict[str, float]:
        """Return the metrics that there are, by name.

        Examples
        --------
        >>> Error(mode="local", target="strength", unit="MPa", rmse=2.0, mae=1.5, r2=None).values()
        {'rmse': 2.0, 'mae': 1.5}
        """
        found = {"rmse": self.rmse, "mae": self.mae, "r2": self.r2}
        return {name: value for name, value in found.items() if value is not None}


class Tracker(Protocol):
    """Keeps what it is told where somebody will look at it."""

    def round(self, line: RoundLine) -> None:
        """Take a round that counted."""

    def finished(self, errors: Sequence[Error]) -> None:
        """Take what the run ends with."""

    def close(self) -> None:
        """Leave all of it where it is to stay."""


class Guarded:
    """A tracker that costs a warning when it fails, and never the run.

    Parameters
    ----------
    name : str
    tracker : Tracker
    warn : callable
        Told one sentence when it fails; it is told nothing more after that.
    """

    def __init__(self, name: str, tracker: Tracker, warn: Callable[[str], None]) -> None:
        self._name = name
        self._tracker = tracker
        self._warn = warn
        self._failed = False

    def round(self, line: RoundLine) -> None:
        """Take a round that counted."""
        self._tell(lambda tracker: tracker.round(line))

    def finished(self, errors: Sequence[Error]) -> None:
        """Take what the run ends with."""
        self._tell(lambda tracker: tracker.finished(errors))

    def close(self) -> None:
        """Leave all of it where it is to stay."""
        self._tell(lambda tracker: tracker.close())

    def _tell(self, news: Callable[[Tracker], None]) -> None:
        if self._failed:
            return
        try:
            news(self._tracker)
        except Exception as error:
            # its disk or its server: the run is worth more than its picture
            self._failed = True
            with suppress(Exception):
                self._tracker.close()
            self._warn(shortened(f"{self._name} tracks no longer, the run goes on: {_why(error)}"))


def require_trackers(names: Sequence[str]) -> tuple[str, ...]:
    """Return the trackers that are asked for, each once, or say what is missing for one.

    Raises
    ------
    ConfigurationError
        Names the trackers that there are, or the extra to install.

    Examples
    --------
    >>> require_trackers(["wandb"])
    Traceback (most recent call last):
    ...
    common.errors.ConfigurationError: --track wandb: there is no such tracker; choose among \
tensorboard, mlflow
    """
    for name in names:
        if name not in TRACKERS:
            raise ConfigurationError(
                f"--track {name}: there is no such tracker; choose among {', '.join(TRACKERS)}"
            )
        if find_spec(TRACKERS[name]) is None:
            raise ConfigurationError(
                f"--track {name} needs a package that is not installed here; install it with: "
                f'pip install "crossply[{name}]"'
            )
    return tuple(dict.fromkeys(names))


@contextmanager
def tracked(
    names: Sequence[str], folder: Path, federation: Federation, warn: Callable[[str], None]
) -> Iterator[list[Tracker]]:
    """Open trackers for a run, and close them when the block ends.

    Parameters
    ----------
    names : sequence of str
        Keys of `TRACKERS`.
    folder : Path
        The run's own.
    federation : Federation
    warn : callable
        Told one sentence when a tracker fails later.

    Raises
    ------
    ConfigurationError
        If one cannot be opened.
    """
    with ExitStack() as opened:
        trackers: list[Tracker] = []
        for name in names:
            trackers.append(Guarded(name, _opened(name, folder, federation), warn))
            opened.callback(trackers[-1].close)
        yield trackers


def _opened(name: str, folder: Path, federation: Federation) -> Tracker:
    settings = settings_of(federation)
    try:
        # their libraries take seconds to import
        if name == "tensorboard":
            from simulation.tracking.tensorboard_tracker import TensorBoardTracker

            return TensorBoardTracker(folder, settings)
        from simulation.tracking.mlflow_tracker import MlflowTracker

        return MlflowTracker(folder, federation.name, settings)
    except Exception as error:
        raise ConfigurationError(shortened(f"--track {name}: {_why(error)}")) from error


def _why(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def settings_of(federation: Federation) -> dict[str, Setting]:
    """Return every key of a federation file that has a value, by its dotted name.

    Examples
    --------
    >>> from common.federation import Federation
    >>> found = settings_of(Federation.model_validate({
    ...     "name": "x", "targets": {"hardness": {"unit": "GPa", "range": [0, 20]}},
    ...     "imaging": {"scale": "fit"}, "backbone": {"name": "resnet18"}}))
    >>> found["training.rounds"], found["targets.hardness.range"], found["head.hidden"]
    (40, '[0.0, 20.0]', '[64]')
    """
    # as it is hashed: a path on this machine stands for itself nowhere else
    return dict(_flat(json.loads(federation.canonical_json()), ""))


def _flat(data: Mapping[str, object], prefix: str) -> list[tuple[str, Setting]]:
    found: list[tuple[str, Setting]] = []
    for key, value in data.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, str | int | float | bool):
            found.append((f"{prefix}{key}", value))
        elif value is not None:
            found.append((f"{prefix}{key}", str(value)))
    return found


def scalars(line: RoundLine) -> dict[str, float]:
    """Return the numbers of a round, by name."""
    found = {"loss": line.train_loss, "share of labs": line.share, "seconds": line.seconds}
    return {name: value for name, value in found.items() if value is not None}
