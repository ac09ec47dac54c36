"""A shared projection: a fixed layer between the standardised features and the head.

It makes the head's first layer, nearly all of it, ten times smaller, and with it what travels and
what is trained. After training it is folded into that layer: a head that is evaluated, released or
used takes standardised features, as any other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from common.components import first_basis, principal_basis
from common.federation import Federation
from common.head import HeadArrays, head_shapes, initial_head
from common.threads import one_thread


def trained_shapes(federation: Federation) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of each array of the head as it is trained and sent."""
    head = federation.head
    inputs = federation.num_features if head.projection == "none" else head.num_components
    return head_shapes(inputs, len(federation.targets), head)


def find_projection(
    federation: Federation, num_specimens: int, multiply: Callable[[np.ndarray], np.ndarray | None]
) -> np.ndarray | None:
    """Return the projection that a federation agreed on.

    Parameters
    ----------
    federation : Federation
    num_specimens : int
        Over all labs.
    multiply : callable
        Given a basis Q, returns the sum over labs of X'(XQ), X being standardised features, or None
        where no lab tells.

    Returns
    -------
    ndarray of shape (n_features, n_components), float32, or None
        None if the head takes features as they are, or no lab tells what is needed.
    """
    if federation.head.projection == "none":
        return None
    if federation.head.projection == "random":
        return random_projection(federation)
    components, num_features = federation.head.num_components, federation.num_features
    # centred specimens span one direction less than there are of them
    found = max(1, min(components, num_specimens - 1))
    basis = principal_basis(multiply, num_features, found, federation.training.seed)
    if basis is None:
        return None
    return _scaled(np.pad(basis, [(0, 0), (0, components - basis.shape[1])]))


def random_projection(federation: Federation) -> np.ndarray:
    """Return the projection on random directions, which everybody draws from the public seed.

    Returns
    -------
    ndarray of shape (n_features, n_components), float32
    """
    head, seed = federation.head, federation.training.seed
    return _random_projection(federation.num_features, head.num_components, seed)


@lru_cache(maxsize=4)
def _random_projection(num_features: int, components: int, seed: int) -> np.ndarray:
    drawn = _scaled(first_basis(num_features, components, seed))
    drawn.flags.writeable = False
    return drawn


def _scaled(basis: np.ndarray) -> np.ndarray:
    """Make inputs so much larger that a step of AdamW moves outputs as far as on all features.

    A step moves each weight by the learning rate: outputs by that times the sum of the inputs'
    sizes, which on few inputs is smaller.
    """
    num_features, components = basis.shape
    scaled: np.ndarray = basis * np.sqrt(num_features / components)
    return scaled.astype(np.float32)


def first_head(federation: Federation) -> HeadArrays:
    """Draw the head that a run begins with.

    On a projection, hidden units vary at first as much as they do on all features.
    """
    head = initial_head(trained_shapes(federation), federation.training.seed)
    if federation.head.projection != "none":
        head["0.weight"] *= np.float32(federation.head.num_components / federation.num_features)
    return head


def directions(projection: np.ndarray) -> np.ndarray:
    """Return the directions that a projection takes features along.

    Returns
    -------
    ndarray of shape (n_features, n_directions), float64, orthonormal columns
        Inputs that are always zero, for want of specimens, have none.

    Examples
    --------
    >>> directions(np.array([[0.5, 0.0], [0.0, 0.0]], np.float32))
    array([[1.],
           [0.]])
    """
    lengths = np.linalg.norm(projection.astype(np.float64), axis=0)
    unit: np.ndarray = projection[:, lengths > 0] / lengths[lengths > 0]
    return unit


def projected(features: np.ndarray, projection: np.ndarray | None) -> np.ndarray:
    """Return what the head is trained on.

    Parameters
    ----------
    features : ndarray of shape (n_specimens, n_features), float32, standardised
    projection : ndarray of shape (n_features, n_components), float32, or None

    Returns
    -------
    ndarray of shape (n_specimens, n_components), float32, or the features themselves
    """
    if projection is None:
        return features
    # sums of floats depend on how many threads they are dealt out to
    with one_thread():
        inputs: np.ndarray = features @ projection
    return inputs


def folded(head: HeadArrays, projection: np.ndarray | None) -> HeadArrays:
    """Return the head that does to standardised features what `head` does to projected ones.

    Examples
    --------
    >>> head = {"0.weight": np.array([[2.0]], np.float32), "0.bias": np.zeros(1, np.float32)}
    >>> folded(head, np.array([[1.0], [3.0]], np.float32))["0.weight"]
    array([[2., 6.]], dtype=float32)
    """
    if projection is None:
        return head
    with one_thread():
        return head | {"0.weight": head["0.weight"] @ projection.T}
