"""One step of the optimizer, through torch's functional form.

The classes of ``torch.optim`` import torch's compiler when the first one is made, seconds for
nothing; the functions are the same arithmetic, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd


class Optimizer(Protocol):
    """Changes parameters in place, given their gradients."""

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Take one step."""

    def narrow(self, parameters: list[Tensor]) -> None:
        """Go on with the first rows of stacked parameters, which these are, alone."""


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), betas 0.9 and 0.999."""

    def __init__(self, parameters: list[Tensor], learning_rate: float, weight_decay: float) -> None:
        self._parameters = parameters
        self._learning_rate, self._weight_decay = learning_rate, weight_decay
        self._means = [torch.zeros_like(parameter) for parameter in parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in parameters]
        self._steps = [torch.zeros((), device=parameter.device) for parameter in parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Take one step."""
        adamw(
            self._parameters,
            list(gradients),
            self._means,
            self._squares,
            [],
            self._steps,
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self._learning_rate,
            weight_decay=self._weight_decay,
            eps=1e-8,
            maximize=False,
        )

    def narrow(self, parameters: list[Tensor]) -> None:
        """Go on with the first rows of stacked parameters, which these are, alone."""
        self._parameters = parameters
        self._means = _first_rows(self._means, parameters)
        self._squares = _first_rows(self._squares, parameters)


class Sgd:
    """Plain gradient descent; for it, decay of the loss and of the weights are the same."""

    def __init__(self, parameters: list[Tensor], learning_rate: float, weight_decay: float) -> None:
        self._parameters = parameters
        self._learning_rate, self._weight_decay = learning_rate, weight_decay

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Take one step."""
        sgd(
            self._parameters,
            list(gradients),
            [None] * len(self._parameters),
            fused=True,
            weight_decay=self._weight_decay,
            momentum=0.0,
            lr=self._learning_rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )

    def narrow(self, parameters: list[Tensor]) -> None:
        """Go on with the first rows of stacked parameters, which these are, alone."""
        self._parameters = parameters


def _first_rows(stacked: list[Tensor], parameters: list[Tensor]) -> list[Tensor]:
    return [value[: len(left)] for value, left in zip(stacked, parameters, strict=True)]


OPTIMIZERS: dict[str, type[AdamW] | type[Sgd]] = {"adamw": AdamW, "sgd": Sgd}
