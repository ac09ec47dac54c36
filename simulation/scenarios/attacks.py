"""What hostile labs make of a head before they send it: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from common.head import HeadArrays
from simulation.scenarios.scenario import Hostile

WORDS = {
    "sign_flip": "sent its update the wrong way round",
    "scaled": "sent its update scaled",
    "no_numbers": "sent no numbers",
    "free_rider": "sent back the head that it was sent",
}
"""Attacks on what is sent; ``label_scale`` lies in a lab's own table."""


def in_words(attack: Hostile) -> str:
    """Say what a lab did.

    Examples
    --------
    >>> in_words(Hostile(attack="scaled", factor=10.0))
    'sent its update scaled by 10'
    """
    return WORDS[attack.attack] + ("" if attack.factor is None else f" by {attack.factor:g}")


def tampered(
    received: HeadArrays, trained: Mapping[str, np.ndarray], attack: Hostile
) -> dict[str, np.ndarray]:
    """Return the head that a lab sends in place of the one that it trained.

    Parameters
    ----------
    received, trained : mapping of name to ndarray
    attack : Hostile

    Examples
    --------
    >>> received, trained = ({"bias": np.array([value])} for value in (1.0, 1.5))
    >>> tampered(received, trained, Hostile(attack="sign_flip"))["bias"]
    array([0.5])
    >>> tampered(received, trained, Hostile(attack="scaled", factor=10.0))["bias"]
    array([6.])
    """
    if attack.attack == "free_rider":
        return dict(received)
    if attack.attack == "no_numbers":
        return {name: np.full_like(array, np.nan) for name, array in trained.items()}
    factor = -1.0 if attack.attack == "sign_flip" else float(attack.factor or 1.0)
    return {
        name: np.asarray(before + factor * (trained[name] - before), dtype=trained[name].dtype)
        for name, before in received.items()
    }
