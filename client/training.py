"""Training the head on one table: a pure function of head, specimens and plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from client.optimizer import OPTIMIZERS
from common.errors import DivergedError
from common.federation import Federation
from common.head import HeadArrays, forward


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """How to train, and the seed that every random choice follows from.

    Attributes
    ----------
    epochs, batch_size : int
    optimizer : str
        ``adamw`` (Loshchilov & Hutter 2019) or ``sgd``, with decoupled weight decay for both.
    learning_rate, weight_decay, dropout : float
    proximal_mu : float
        Weight of FedProx's term, mu/2 times the squared distance to the head that was received
        (Li et al. 2020, arXiv 1812.06127).
    seed : int
    """

    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    weight_decay: float
    dropout: float
    seed: int
    proximal_mu: float = 0.0


def plan_for(federation: Federation, *, epochs: int, seed: int, proximal_mu: float) -> TrainingPlan:
    """Return the plan that a federation file stands for."""
    training = federation.training
    return TrainingPlan(
        epochs=epochs,
        batch_size=training.batch_size,
        optimizer=training.optimizer,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        dropout=federation.head.dropout,
        seed=seed,
        proximal_mu=proximal_mu,
    )


def train_head(
    head: HeadArrays, features: np.ndarray, targets: np.ndarray, plan: TrainingPlan
) -> tuple[HeadArrays, float]:
    """Train a copy of `head`.

    Parameters
    ----------
    head : mapping of name to ndarray
    features : ndarray of shape (n_specimens, n_features), float32, standardised
    targets : ndarray of shape (n_specimens, n_targets), float32, standardised, NaN = missing
    plan : TrainingPlan

    Returns
    -------
    head : mapping of name to ndarray
        Trained; the one passed in is left as it was.
    loss : float
        Mean squared error over the batches of all epochs, standardised.

    Raises
    ------
    DivergedError
        If the head is not finite any more.
    """
    received = {name: torch.from_numpy(array.copy()) for name, array in head.items()}
    parameters = {name: value.clone().requires_grad_() for name, value in received.items()}
    weights = list(parameters.values())
    optimizer = OPTIMIZERS[plan.optimizer](weights, plan.learning_rate, plan.weight_decay)
    generator = torch.Generator().manual_seed(plan.seed)
    x, y = torch.from_numpy(features), torch.from_numpy(targets)
    observed = torch.isfinite(y)
    y = torch.where(observed, y, 0.0)
    total, num_values = torch.zeros((), dtype=torch.float64), 0
    for batch in _batches(len(x), plan, generator):
        seen = observed[batch]
        if not seen.any():
            continue
        outputs = forward(parameters, x[batch], dropout=plan.dropout, generator=generator)
        squared = masked_squared_error(outputs, y[batch], seen)
        loss = squared / seen.sum()
        loss = loss + _proximal(parameters, received, plan.proximal_mu)
        optimizer.step(torch.autograd.grad(loss, weights))
        total += squared.detach()
        num_values += int(seen.sum())
    trained = {name: value.detach().numpy() for name, value in parameters.items()}
    if not all(np.isfinite(array).all() for array in trained.values()):
        raise DivergedError(
            f"training diverged: the head is not finite after {plan.epochs} epochs at a learning "
            f"rate of {plan.learning_rate:g}; choose a smaller training.learning_rate"
        )
    return trained, float(total) / max(num_values, 1)


def masked_squared_error(outputs: Tensor, targets: Tensor, observed: Tensor) -> Tensor:
    """Sum the squared errors where a target was measured.

    Parameters
    ----------
    outputs, targets : Tensor of shape (n_specimens, n_targets), standardised
    observed : Tensor of shape (n_specimens, n_targets), bool
    """
    return (torch.where(observed, outputs - targets, 0.0) ** 2).sum()


def _batches(length: int, plan: TrainingPlan, generator: torch.Generator) -> Iterator[Tensor]:
    for _ in range(plan.epochs):
        yield from torch.split(torch.randperm(length, generator=generator), plan.batch_size)


def _proximal(
    parameters: dict[str, Tensor], received: dict[str, Tensor], mu: float
) -> Tensor | float:
    if mu == 0.0:
        return 0.0
    distance = sum(((parameters[name] - received[name]) ** 2).sum() for name in parameters)
    return 0.5 * mu * distance
