"""A run: handshake, statistics, rounds of training, evaluation, release, over any Flower grid.

A run is a chain of steps from one `Progress` to the next. Where progress is saved, a run that was
stopped anywhere goes on from the last step that was finished, to the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from flwr.serverapp import Grid

from common.counts import HELD_OUT_ONE_IN
from common.errors import QuorumError
from common.federation import Federation
from common.projection import first_head
from common.seeds import seed_global_streams
from server.phases import Coordinator
from server.release import release_of
from server.roster import Roster
from server.state import Progress, RoundRecord, RoundState, RunResult

T = TypeVar("T")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Between two tries of a phase that is below the quorum."""


class Keeper(Protocol):
    """Keeps a run's progress; `server.checkpoint.Checkpoints` does so on disk."""

    def load(self) -> Progress | None:
        """Return the last progress, or None if there is none."""

    def save(self, progress: Progress) -> None:
        """Keep progress."""


class Forgetful:
    """Keeps nothing: a run in one process, which ends with it."""

    def load(self) -> None:
        """Return None."""

    def save(self, progress: Progress) -> None:
        """Do nothing."""


def _ignore(news: object) -> None:
    """Take no notice."""


def _never(why: str) -> bool:
    """Say no."""
    return False


@dataclass(frozen=True, kw_only=True)
class Watcher:
    """Is told how a run goes.

    Attributes
    ----------
    entered : callable
        Told the name of each phase that begins.
    counted : callable
        Told the record of each round that counted, once it is kept.
    paused : callable
        Told for whom a run below its quorum waits.
    """

    entered: Callable[[str], None] = _ignore
    counted: Callable[[RoundRecord], None] = _ignore
    paused: Callable[[str], None] = _ignore


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run is kept, watched and waited for.

    Attributes
    ----------
    keeper : Keeper
    watcher : Watcher
    patience : float
        Seconds that a run below its quorum waits for labs before it ends with an error.
    again : callable
        Told why a phase is below the quorum; whether to try it again at once, as in a simulation,
        whose labs come back without anybody's waiting for them.
    enrolled : mapping of int to str
        Names of the labs that the coordinator knows beforehand, by node.
    absent : mapping of str to str
        Labs without a node, by name, and why a new run begins without them.
    revoked : callable
        Returns the nodes of those that have been put out.
    held_out_one_in : int
        A lab holds out one specimen in so many at most: another number in a simulation alone,
        which chooses the folds itself.
    cross_evaluates : bool
        Whether labs' own heads are tried at each other where that was agreed; a simulation has
        them at hand.
    """

    keeper: Keeper = field(default_factory=Forgetful)
    watcher: Watcher = field(default_factory=Watcher)
    patience: float = 0.0
    again: Callable[[str], bool] = _never
    enrolled: Mapping[int, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    revoked: Callable[[], Collection[int]] = tuple
    held_out_one_in: int = HELD_OUT_ONE_IN
    cross_evaluates: bool = True


def run_federation(
    grid: Grid, federation: Federation, options: RunOptions | None = None
) -> RunResult:
    """Run a federation from handshake to release, or from where it was stopped.

    Parameters
    ----------
    grid : Grid
        Any of Flower's, or crossply's own: labs are reached through it alone.
    federation : Federation
    options : RunOptions

    Raises
    ------
    QuorumError
        If too few labs take part in any phase, for longer than the patience lasts; names those
        that are missing.
    """
    chosen = options or RunOptions()
    progress = chosen.keeper.load()
    if progress is None:
        progress = _begin(grid, federation, chosen)
        chosen.keeper.save(progress)
    else:
        progress.roster.enrolled = chosen.enrolled
    coordinator = _coordinator(grid, federation, progress.roster, chosen)
    if progress.state.server_round < federation.training.rounds:
        chosen.watcher.entered("train")
    while progress.state.server_round < federation.training.rounds:
        progress = _train_one_round(progress, coordinator, chosen)
        chosen.keeper.save(progress)
        chosen.watcher.counted(progress.state.history[-1])
    if progress.products is None and progress.phase == "train":
        progress = _sum_products(progress, coordinator, chosen)
        chosen.keeper.save(progress)
    if progress.phase == "train":
        progress = _evaluate(progress, coordinator, chosen)
        chosen.keeper.save(progress)
    if progress.phase == "evaluated":
        progress = _cross_evaluate(progress, coordinator, chosen)
        chosen.keeper.save(progress)
    if progress.unreleased:
        progress = _release(progress, coordinator, chosen)
        chosen.keeper.save(progress)
    return progress.result()


def _coordinator(
    grid: Grid, federation: Federation, roster: Roster, options: RunOptions
) -> Coordinator:
    return Coordinator(
        grid=grid,
        federation=federation,
        roster=roster,
        revoked=options.revoked,
        held_out_one_in=options.held_out_one_in,
    )


def _begin(grid: Grid, federation: Federation, options: RunOptions) -> Progress:
    seed_global_streams(federation.training.seed)
    roster = Roster(enrolled=options.enrolled, excluded=dict(options.absent))
    coordinator = _coordinator(grid, federation, roster, options)
    options.watcher.entered("handshake")
    _patiently(coordinator.shake_hands, coordinator, options)
    options.watcher.entered("statistics")
    standardiser = _patiently(coordinator.gather_statistics, coordinator, options)
    projection = _patiently(lambda: coordinator.find_projection(standardiser), coordinator, options)
    head = first_head(federation)
    return Progress(
        phase="train",
        roster=coordinator.roster,
        standardiser=standardiser,
        projection=projection,
        state=RoundState(server_round=0, head=head),
    )


def _train_one_round(progress: Progress, coordinator: Coordinator, options: RunOptions) -> Progress:
    if coordinator.federation.training.strategy == "ridge":
        return _solve_ridge(progress, coordinator, options)
    state = _patiently(
        lambda: coordinator.train_round(progress.state, progress.standardiser, progress.projection),
        coordinator,
        options,
    )
    return replace(progress, state=state)


def _solve_ridge(progress: Progress, coordinator: Coordinator, options: RunOptions) -> Progress:
    """Train the one round of the strategy ``ridge``: labs send sums, the solution is exact."""
    state, products = _patiently(
        lambda: coordinator.ridge_round(progress.standardiser), coordinator, options
    )
    return replace(progress, state=state, products=products)


def _sum_products(progress: Progress, coordinator: Coordinator, options: RunOptions) -> Progress:
    options.watcher.entered("sums of products")
    products = _patiently(
        lambda: coordinator.sum_products(progress.standardiser, progress.projection),
        coordinator,
        options,
    )
    return replace(progress, products=products)


def _evaluate(progress: Progress, coordinator: Coordinator, options: RunOptions) -> Progress:
    options.watcher.entered("evaluate")
    evaluation = _patiently(
        lambda: coordinator.evaluate(progress.head, progress.standardiser, progress.products),
        coordinator,
        options,
    )
    return replace(progress, phase="evaluated", evaluation=evaluation)


def _cross_evaluate(progress: Progress, coordinator: Coordinator, options: RunOptions) -> Progress:
    if not (options.cross_evaluates and coordinator.federation.privacy.cross_evaluation):
        return replace(progress, phase="finished")
    options.watcher.entered("cross-evaluate")
    return replace(progress, phase="finished", crossed=coordinator.cross_evaluate())


def _release(progress: Progress, coordinator: Coordinator, options: RunOptions) -> Progress:
    options.watcher.entered("release")
    release = release_of(coordinator.federation, progress.result())
    kept = coordinator.release(release, progress.unreleased)
    return replace(progress, released=tuple(sorted({*progress.released, *kept})))


def _patiently(phase: Callable[[], T], coordinator: Coordinator, options: RunOptions) -> T:
    """Run a phase again while it is below the quorum and the patience lasts."""
    until, pause = None, FIRST_PAUSE_S
    while True:
        try:
            return phase()
        except QuorumError as error:
            if options.again(str(error)):
                continue
            until = until or time.monotonic() + options.patience
            left = until - time.monotonic()
            if left <= 0:
                raise
            options.watcher.paused(str(error))
            _wait_for_labs(coordinator, left, pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)


def _wait_for_labs(coordinator: Coordinator, timeout: float, pause: float) -> None:
    """Wait until a quorum of the run's labs is connected, and for a pause unless one comes anew.

    The pause is for labs that are connected and fail: the others answer in vain meanwhile.
    """
    now = time.monotonic()
    pause_ends, until = now + min(pause, timeout), now + timeout
    needed = coordinator.roster.needed(coordinator.federation.training.quorum)
    before = _present(coordinator)
    while time.monotonic() < until:
        time.sleep(0.1)
        present = _present(coordinator)
        if present - before:
            # a moment longer, for others that come back with it
            pause_ends = min(pause_ends, time.monotonic() + FIRST_PAUSE_S)
        if len(present) >= needed and time.monotonic() >= pause_ends:
            return
        before = present


def _present(coordinator: Coordinator) -> set[int]:
    return set(coordinator.grid.get_node_ids()) & set(coordinator.roster.names)
