"""A sweep on disk: Optuna's own SQLite file, which holds finished trials and nothing else.

A trial is written in one transaction, in its turn. Whatever a kill cuts off was not there, and is
tried again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from common.errors import ConfigurationError, StateError

STUDY = "study.db"

BEGUN_WITH = "begun with"
TESTED = "tested"


class Storage:
    """The studies of one sweep.

    Parameters
    ----------
    folder : Path
        The run's.
    begun_with : mapping of str to str
        What the sweep depends on, as hashes by name.

    Raises
    ------
    StateError
        If the folder holds a sweep that was begun with something else, or cannot be used.
    """

    def __init__(self, folder: Path, begun_with: Mapping[str, str]) -> None:
        if set("?#%") & set(str(folder)):
            raise ConfigurationError(f"{folder}: a sweep's folder has no ?, # or % in its name")
        self._path = folder / STUDY
        self._begun_with = dict(begun_with)
        # every word of Optuna's is said by the sweep itself
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        # it holds what was predicted for single specimens
        self._path.touch(mode=0o600)
        with self._said():
            self._storage = RDBStorage(f"sqlite:///{self._path.absolute()}")
            for summary in optuna.get_all_study_summaries(self._storage):
                # a study that a kill left without it holds nothing yet
                if BEGUN_WITH in summary.user_attrs:
                    self._compare(summary.user_attrs[BEGUN_WITH])

    def finished(self, study: str) -> list[FrozenTrial]:
        """Return the trials of a study, in order; those that a process died of are made again."""
        with self._said():
            found: list[FrozenTrial] = self._open(study).get_trials()
        return [trial for trial in found if trial.state is not TrialState.FAIL]

    def add(self, study: str, trial: FrozenTrial) -> None:
        """Keep a finished trial.

        Raises
        ------
        StateError
            If it cannot be kept, for example because the disk is full.
        """
        with self._said():
            self._open(study).add_trial(trial)

    def tested(self, study: str) -> dict[str, Any] | None:
        """Return what came of the outer test of a study, or None while it was not made."""
        with self._said():
            found: dict[str, Any] | None = self._open(study).user_attrs.get(TESTED)
        return found

    def keep_tested(self, study: str, found: Mapping[str, Any]) -> None:
        """Keep what came of the outer test of a study."""
        with self._said():
            self._open(study).set_user_attr(TESTED, dict(found))

    def close(self) -> None:
        """Close the file."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def _open(self, name: str) -> optuna.Study:
        study = optuna.create_study(
            storage=self._storage, study_name=name, load_if_exists=True, direction="minimize"
        )
        if BEGUN_WITH not in study.user_attrs:
            study.set_user_attr(BEGUN_WITH, self._begun_with)
        return study

    def _compare(self, before: Mapping[str, str]) -> None:
        changed = [what for what, digest in self._begun_with.items() if before.get(what) != digest]
        if changed:
            raise StateError(
                f"{self._path.parent} was begun with another {' and another '.join(changed)}; put "
                "back what it was, or name another folder with --out"
            )

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
            why = _innermost(error)
            raise StateError(
                f"{self._path} cannot be used: {why}; what was kept is kept: mend this, and run "
                "the same command again"
            ) from error


def _innermost(error: BaseException) -> str:
    while (before := error.__cause__ or getattr(error, "orig", None)) is not None:
        error = before
    return str(error).splitlines()[0] if str(error) else type(error).__name__
