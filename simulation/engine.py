"""Which engine trains virtual labs, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import Context, UserConfig

from client.app import client_app
from client.lab import Lab
from simulation.batched import BatchedGrid
from simulation.grid import InProcessGrid

LABS_FOR_BATCHED = 16
"""With fewer labs a round takes a tenth of a second one after the other; with so many, training
them together is about twice as fast (python -m benchmarks.simulation_speed)."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The engine of a simulation.

    Attributes
    ----------
    name : str
        ``inprocess`` or ``batched``.
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
    """
    many = num_labs >= LABS_FOR_BATCHED
    name = asked if asked != "auto" else "batched" if many else "inprocess"
    how = "trained together" if name == "batched" else "one after the other"
    why = "as asked"
    if asked == "auto":
        why = f"auto: {'from' if many else 'fewer than'} {LABS_FOR_BATCHED} labs"
        why += " on about twice as fast" if many else ""
    return Engine(name=name, reason=f"Engine: {name}, {num_labs} labs {how} ({why})")


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
