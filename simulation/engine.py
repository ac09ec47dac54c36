"""Which engine trains virtual labs, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TypeVar

from flwr.app import Context, UserConfig
from flwr.serverapp import Grid

from client.app import client_app
from client.lab import Lab
from common.errors import ConfigurationError
from simulation.batched import BatchedGrid
from simulation.grid import InProcessGrid
from simulation.ray.flower_ray import on_ray

T = TypeVar("T")

FLOWER_RAY = "flower-ray"

HOW = {
    "inprocess": "one after the other",
    "batched": "trained together",
    FLOWER_RAY: "in the processes of Flower's Ray engine",
}

LABS_FOR_BATCHED = 16
"""With fewer labs a round takes a tenth of a second one after the other; with so many, training
them together is about twice as fast (python -m benchmarks.simulation_speed)."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The engine of a simulation.

    Attributes
    ----------
    name : str
        One of `HOW`.
    reason : str
        One line for whoever waits for it.
    """

    name: str
    reason: str


def choose_engine(asked: str, num_labs: int) -> Engine:
    """Return the engine that is asked for, or that suits so many labs.

    Parameters
    ----------
    asked : str
        One of `simulation.cli.ENGINE_NAMES`.
    num_labs : int

    Examples
    --------
    >>> choose_engine("auto", 200).reason
    'Engine: batched, 200 labs trained together (auto: from 16 labs on about twice as fast)'
    >>> choose_engine("auto", 3).reason
    'Engine: inprocess, 3 labs one after the other (auto: fewer than 16 labs)'
    >>> choose_engine("batched", 3).reason
    'Engine: batched, 3 labs trained together (as asked)'
    >>> choose_engine("flower-ray", 3).reason
    "Engine: flower-ray, 3 labs in the processes of Flower's Ray engine (as asked)"
    """
    many = num_labs >= LABS_FOR_BATCHED
    name = asked if asked != "auto" else "batched" if many else "inprocess"
    why = "as asked"
    if asked == "auto":
        why = f"auto: {'from' if many else 'fewer than'} {LABS_FOR_BATCHED} labs"
        why += " on about twice as fast" if many else ""
    return Engine(name=name, reason=f"Engine: {name}, {num_labs} labs {HOW[name]} ({why})")


def require_engine(asked: str) -> None:
    """Raise ConfigurationError if what an engine needs is not installed."""
    if asked == FLOWER_RAY and find_spec("ray") is None:
        raise ConfigurationError(
            "--engine flower-ray needs Ray, which is not installed here; install it with: "
            'pip install "crossply[ray]"'
        )


def on_grid(engine: str, labs: Mapping[str, Lab], work: Callable[[Grid], T]) -> T:
    """Give `work` a grid of virtual labs, and return what it returns.

    Parameters
    ----------
    engine : str
        One of `HOW`.
    labs : mapping of str to Lab
        By name.
    work : callable
        Such as a whole run; nothing is kept of the labs when it returns.

    Raises
    ------
    ConfigurationError
        If what the engine needs is not installed.
    EngineError
        If Ray does not come up, or ends before the work does.
    """
    require_engine(engine)
    if engine == FLOWER_RAY:
        return on_ray(labs, work)
    return work(make_grid(engine, labs))


def make_grid(engine: str, labs: Mapping[str, Lab]) -> InProcessGrid:
    """Return a grid of virtual labs.

    Parameters
    ----------
    engine : str
        ``inprocess`` or ``batched``.
    labs : mapping of str to Lab
        By name.
    """
    configs: dict[str, UserConfig] = {name: {"lab": name} for name in labs}

    def open_lab(context: Context) -> Lab:
        return labs[str(context.node_config["lab"])]

    if engine == "batched":
        return BatchedGrid(open_lab, configs)
    return InProcessGrid(client_app(open_lab), configs)
