"""Names and shapes of a head's arrays; without torch, for commands that only look at a folder."""

from __future__ import annotations

from itertools import pairwise

from common.federation import Federation, Head


def head_shapes(num_features: int, num_targets: int, head: Head) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of each array of a head.

    Examples
    --------
    >>> head_shapes(3, 1, Head(hidden=(2,)))
    {'0.weight': (2, 3), '0.bias': (2,), '1.weight': (1, 2), '1.bias': (1,)}
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (inputs, outputs) in enumerate(pairwise((num_features, *head.hidden, num_targets))):
        shapes[f"{layer}.weight"] = (outputs, inputs)
        shapes[f"{layer}.bias"] = (outputs,)
    return shapes


def linear_shapes(num_features: int, num_targets: int) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of each array of a head without hidden layers."""
    return head_shapes(num_features, num_targets, Head(hidden=()))


def federation_shapes(federation: Federation) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of each array of the head that a federation agreed on."""
    return head_shapes(federation.num_features, len(federation.targets), federation.head)
