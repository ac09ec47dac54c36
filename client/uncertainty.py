"""How unsure a head is about a specimen: Monte Carlo dropout.

Gal & Ghahramani 2016 (ICML, arXiv 1506.02142): the same specimen through the head with other
hidden units dropped each time. All specimens see the same thinned heads, so that what is said of
one does not depend on which others are asked about.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common.federation import Federation
from common.head import HeadArrays, forward
from common.seeds import seed_for
from common.standardise import Standardiser

PASSES = 64

FLOOR = 0.2
"""Added to the dropout's own, in deviations of the target: what no dropout can tell of.

Between 0.1 and 0.5 widths hardly change; without it, intervals are 20 to 90 % wider for the same
coverage, since some specimens are called certain (python -m benchmarks.sums)."""


def spread_in_units(
    head: HeadArrays, standardiser: Standardiser, features: np.ndarray, federation: Federation
) -> np.ndarray:
    """Return the scale of each prediction's error, up to a factor that calibration finds.

    The square root of the variance over thinned heads and of a constant, so that a specimen that
    all thinned heads agree on is not called certain. A head without hidden layers or dropout has
    the constant alone.

    Parameters
    ----------
    head : mapping of name to ndarray
    standardiser : Standardiser
    features : ndarray of shape (n_specimens, n_features), as extracted
    federation : Federation

    Returns
    -------
    ndarray of shape (n_specimens, n_targets), in the targets' units
    """
    dropped = dropout_spread(
        head, standardiser.features(features), federation.head.dropout, federation.training.seed
    )
    spread: np.ndarray = np.sqrt(dropped**2 + FLOOR**2) * standardiser.target_scale
    return spread


def dropout_spread(head: HeadArrays, features: np.ndarray, dropout: float, seed: int) -> np.ndarray:
    """Return the standard deviation over thinned heads, zero without dropout or hidden layers.

    Parameters
    ----------
    head : mapping of name to ndarray
    features : ndarray of shape (n_specimens, n_features), float32, standardised
    dropout : float
    seed : int

    Returns
    -------
    ndarray of shape (n_specimens, n_targets), float64, standardised

    Examples
    --------
    >>> linear = {"0.weight": np.ones((1, 2), np.float32), "0.bias": np.zeros(1, np.float32)}
    >>> dropout_spread(linear, np.ones((3, 2), np.float32), dropout=0.5, seed=0).tolist()
    [[0.0], [0.0], [0.0]]
    """
    with torch.inference_mode():
        parameters = {name: torch.from_numpy(array) for name, array in head.items()}
        x = torch.from_numpy(features)
        if dropout == 0 or len(head) == 2 or not len(features):
            return np.zeros((len(features), len(list(head.values())[-1])))
        # the first layer comes before what is dropped: the same for all, and most of the work
        hidden = F.relu(F.linear(x, parameters.pop("0.weight"), parameters.pop("0.bias")))
        outputs = [forward(thin, hidden).double() for thin in _thinned(parameters, dropout, seed)]
        return torch.stack(outputs).std(dim=0, correction=0).numpy()


def _thinned(
    parameters: Mapping[str, Tensor], dropout: float, seed: int
) -> Iterator[dict[str, Tensor]]:
    """Draw what follows the first layer with hidden units dropped: those are not listened to."""
    later = {_one_layer_down(name): tensor for name, tensor in parameters.items()}
    generator = torch.Generator().manual_seed(seed_for(seed, "spread"))
    for _ in range(PASSES):
        thin = dict(later)
        for layer in range(len(later) // 2):
            weight = later[f"{layer}.weight"]
            kept = torch.rand(weight.shape[1], generator=generator) >= dropout
            thin[f"{layer}.weight"] = weight * kept / (1.0 - dropout)
        yield thin


def _one_layer_down(name: str) -> str:
    layer, _, kind = name.partition(".")
    return f"{int(layer) - 1}.{kind}"
