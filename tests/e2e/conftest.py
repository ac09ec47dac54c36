"""A consortium on loopback for each test; `benchmarks.loopback` says how it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from benchmarks.loopback import Consortium, warm_context


@pytest.fixture(scope="session")
def forked() -> ForkServerContext:
    """Return the context that forks processes from a warm server."""
    return warm_context()


@pytest.fixture(scope="session")
def feature_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache of features that all runs of the session share."""
    return tmp_path_factory.mktemp("features")


@pytest.fixture
def site(
    tmp_path: Path,
    make_lab: Callable[[str], Any],
    forked: ForkServerContext,
    feature_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Consortium]:
    """A consortium whose processes are ended with the test."""
    monkeypatch.setenv("CROSSPLY_CACHE", str(feature_cache))
    made = Consortium(tmp_path, make_lab, forked)
    yield made
    made.close()
