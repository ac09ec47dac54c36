"""The head: a multi-layer perceptron, the only thing that is trained and sent.

It is a plain function of named arrays, so that what travels, what is averaged and what is
trained are one and the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common.head_shapes import federation_shapes as federation_shapes
from common.head_shapes import head_shapes as head_shapes
from common.head_shapes import linear_shapes as linear_shapes
from common.seeds import seed_for

HeadArrays = dict[str, np.ndarray]
"""Weights and biases by name, float32, in the order of the layers."""


def initial_head(shapes: Mapping[str, tuple[int, ...]], seed: int) -> HeadArrays:
    """Draw a head's first weights: hidden layers uniform in ±1/sqrt(inputs), the output zero.

    With its output layer at zero a head predicts the mean before it has learned anything, and
    no lab spends its first steps on unlearning a random function
    (docs/decisions/feature-vector.md).

    Examples
    --------
    >>> from common.federation import Head
    >>> first = initial_head(head_shapes(3, 1, Head(hidden=(2,))), seed=0)
    >>> bool(first["0.weight"].any()), bool(first["1.weight"].any())
    (True, False)
    """
    generator = np.random.default_rng(seed_for(seed, "head"))
    output = len(shapes) // 2 - 1
    head: HeadArrays = {}
    for name, shape in shapes.items():
        layer = name.partition(".")[0]
        bound = 0.0 if layer == str(output) else 1.0 / np.sqrt(shapes[f"{layer}.weight"][1])
        head[name] = generator.uniform(-bound, bound, shape).astype(np.float32)
    return head


def forward(
    parameters: Mapping[str, Tensor],
    features: Tensor,
    *,
    dropout: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Run the head.

    Parameters
    ----------
    parameters : mapping of name to Tensor
    features : Tensor of shape (n_specimens, n_features), standardised
    dropout : float
        Share of hidden units dropped, with inverted scaling (Srivastava et al. 2014).
    generator : torch.Generator or None
        Draws the dropped units.

    Returns
    -------
    Tensor of shape (n_specimens, n_targets), standardised
    """
    kept = draw_kept(hidden_widths(parameters), len(features), dropout, generator)
    return run_layers(parameters, features, kept, dropout=dropout)


def hidden_widths(head: Mapping[str, np.ndarray] | Mapping[str, Tensor]) -> list[int]:
    """Return how many units each hidden layer has.

    Examples
    --------
    >>> from common.federation import Head
    >>> hidden_widths(initial_head(head_shapes(9, 1, Head(hidden=(4, 2))), seed=0))
    [4, 2]
    """
    return [head[f"{layer}.bias"].shape[-1] for layer in range(len(head) // 2 - 1)]


def draw_kept(
    widths: Sequence[int],
    num_specimens: int,
    dropout: float,
    generator: torch.Generator | None,
) -> list[Tensor]:
    """Draw which units of each hidden layer, of some widths, are kept for each specimen.

    Returns
    -------
    list of Tensor of shape (num_specimens, width), bool
        One for each hidden layer; empty without dropout.

    Examples
    --------
    >>> [kept.shape for kept in draw_kept([3], 5, 0.5, None)]
    [torch.Size([5, 3])]
    >>> draw_kept([3], 5, 0.0, None)
    []
    """
    (kept,) = draw_kept_in_batches(widths, [num_specimens], dropout, generator)
    return kept


def draw_kept_in_batches(
    widths: Sequence[int],
    sizes: Sequence[int],
    dropout: float,
    generator: torch.Generator | None,
) -> list[list[Tensor]]:
    """Return what `draw_kept` draws for batches of these sizes, one after the other, in one call.

    Examples
    --------
    >>> one, other = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    >>> at_once = draw_kept_in_batches([3, 2], [4, 7], 0.5, one)
    >>> in_turn = [draw_kept([3, 2], size, 0.5, other) for size in (4, 7)]
    >>> all(map(torch.equal, sum(at_once, []), sum(in_turn, [])))
    True
    """
    if dropout == 0.0:
        return [[] for _ in sizes]
    lengths = [size * width for size in sizes for width in widths]
    parts = iter(torch.split(torch.rand(sum(lengths), generator=generator) >= dropout, lengths))
    return [[next(parts).view(size, width) for width in widths] for size in sizes]


def run_layers(
    parameters: Mapping[str, Tensor],
    values: Tensor,
    kept: Sequence[Tensor],
    *,
    dropout: float = 0.0,
    linear: Callable[[Tensor, Tensor, Tensor], Tensor] = F.linear,
) -> Tensor:
    """Run the layers of one head, or of a stack of heads where `linear` is of a stack.

    Parameters
    ----------
    parameters : mapping of name to Tensor
    values : Tensor
        Of one head: features of shape (n_specimens, n_features), standardised.
    kept : sequence of Tensor
        As `draw_kept` gives them, in the shape of what `linear` returns.
    dropout : float
    linear : callable
        Given values, weight and bias of a layer.

    Examples
    --------
    >>> parameters = {"0.weight": torch.tensor([[2.0]]), "0.bias": torch.tensor([1.0])}
    >>> run_layers(parameters, torch.tensor([[3.0]]), [])
    tensor([[7.]])
    """
    num_layers = len(parameters) // 2
    for layer in range(num_layers):
        values = linear(values, parameters[f"{layer}.weight"], parameters[f"{layer}.bias"])
        if layer < num_layers - 1:
            values = F.relu(values)
            if kept:
                values = values * kept[layer] / (1.0 - dropout)
    return values


def predict(head: HeadArrays, features: np.ndarray) -> np.ndarray:
    """Return the head's outputs.

    Parameters
    ----------
    head : mapping of name to ndarray
    features : ndarray of shape (n_specimens, n_features), float32, standardised

    Returns
    -------
    ndarray of shape (n_specimens, n_targets), float32, standardised
    """
    with torch.inference_mode():
        parameters = {name: torch.from_numpy(array) for name, array in head.items()}
        return forward(parameters, torch.from_numpy(features)).numpy()
