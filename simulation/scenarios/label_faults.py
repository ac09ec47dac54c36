"""What labs have written down wrong: noise, mistaken units, values scaled on purpose.

A lab trains on what it has written down, in every mode, for it knows nothing else. Errors are
measured against what is true, on specimens that were held out: they say what a fault does to the
model, not to the ruler that it is measured with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from client.lab import Lab
from client.specimens import Specimens
from common.federation import Federation
from common.seeds import seed_for
from common.units import convert
from simulation.consortium import Consortium
from simulation.scenarios.events import Event
from simulation.scenarios.rephotographs import shift_events
from simulation.scenarios.scenario import Scenario, of_lab
from simulation.scenarios.virtual_labs import seed_of


def written_targets(consortium: Consortium, scenario: Scenario) -> list[np.ndarray]:
    """Return what each lab takes for its targets, in the federation's units.

    Noise is normal, in shares of the spread (standard deviation) of all labs' values, and stays
    within the federation's range: no lab writes down what cannot be. A mistaken unit and a scaling
    may leave the range, as they do in life.

    Returns
    -------
    list of ndarray of shape (n_specimens, n_targets), float64
        For each lab; NaN where not measured.
    """
    federation = consortium.federation
    spread = _spread(np.concatenate([lab.targets for lab in consortium.labs]))
    limits = np.array([target.range for target in federation.targets.values()])
    seed, found = seed_of(scenario, federation), []
    for lab in consortium.labs:
        targets = lab.targets.copy()
        share = of_lab(scenario.label_noise, lab.lab)
        if share:
            generator = np.random.default_rng(seed_for(seed, "label noise", lab.lab))
            targets += share * spread * generator.standard_normal(targets.shape)
            targets = np.clip(targets, limits[:, 0], limits[:, 1])
        found.append(_mistaken(targets, lab.lab, federation, scenario))
    return found


def training_on(lab: Lab, written: np.ndarray) -> Lab:
    """Return a lab that trains on what it has written down.

    Parameters
    ----------
    lab : Lab
    written : ndarray of shape (n_training, n_targets)
    """
    return replace(lab, training=replace(lab.training, targets=written))


def events_of_data(
    consortium: Consortium, written: Sequence[np.ndarray], scenario: Scenario
) -> list[Event]:
    """Return an event for each lab and fault of its data: its microscope and its table.

    Parameters
    ----------
    consortium : Consortium
    written : sequence of ndarray of shape (n_specimens, n_targets)
        As `written_targets` returns them.
    scenario : Scenario
    """
    federation = consortium.federation
    events = shift_events([lab.lab for lab in consortium.labs], federation, scenario)
    for lab, targets in zip(consortium.labs, written, strict=True):
        events += _events_of_table(lab, targets, federation, scenario)
    return events


def _events_of_table(
    lab: Specimens, written: np.ndarray, federation: Federation, scenario: Scenario
) -> list[Event]:
    events = []
    share = of_lab(scenario.label_noise, lab.lab)
    if share:
        words = f"values with noise of {share:g} of their spread"
        events.append(Event(lab=lab.lab, kind="label noise", words=words))
    mistake = scenario.unit_mistake.get(lab.lab)
    if mistake is not None:
        unit = federation.targets[mistake.target].unit
        words = f"{mistake.target} written in {mistake.unit} and taken for {unit}"
        words += _outside(lab, written, federation)
        events.append(Event(lab=lab.lab, kind="unit mistake", words=words))
    hostile = scenario.hostile.get(lab.lab)
    if hostile is not None and hostile.attack == "label_scale":
        words = f"values times {hostile.factor:g}" + _outside(lab, written, federation)
        events.append(Event(lab=lab.lab, kind="label scale", words=words))
    return events


def _spread(targets: np.ndarray) -> np.ndarray:
    """Return the standard deviation of each target; zero for one that nobody has measured."""
    measured = [column[np.isfinite(column)] for column in targets.T]
    return np.array([values.std() if values.size else 0.0 for values in measured])


def _mistaken(
    targets: np.ndarray, lab: str, federation: Federation, scenario: Scenario
) -> np.ndarray:
    mistake, hostile = scenario.unit_mistake.get(lab), scenario.hostile.get(lab)
    if mistake is not None:
        column = list(federation.targets).index(mistake.target)
        unit = federation.targets[mistake.target].unit
        targets[:, column] = convert(targets[:, column], unit, mistake.unit)
    if hostile is not None and hostile.attack == "label_scale":
        targets = targets * float(hostile.factor or 1.0)
    return targets


def _outside(lab: Specimens, written: np.ndarray, federation: Federation) -> str:
    limits = np.array([target.range for target in federation.targets.values()])
    outside = int(((written < limits[:, 0]) | (written > limits[:, 1])).any(axis=1).sum())
    if not outside:
        return ""
    return (
        f"; {outside} of {len(lab)} specimens lie outside the federation's range, which crossply "
        "lab check would stop"
    )
