"""Training the head on one table: a pure function of head, specimens and plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

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


@dataclass(frozen=True, kw_only=True)
class TrainingTask:
    """One lab's training in one round: all that `train_head` is given.

    Attributes
    ----------
    head : mapping of name to ndarray
    features : ndarray of shape (n_specimens, n_features), standardised
    targets : ndarray of shape (n_specimens, n_targets), standardised, NaN = missing
    plan : TrainingPlan
    """

    head: HeadArrays
    features: np.ndarray
    targets: np.ndarray
    plan: TrainingPlan


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
    x = torch.from_numpy(features)
    y, observed = measured(targets)
    total, num_values = torch.zeros((), dtype=torch.float64), 0
    for batch in chain.from_iterable(epochs(observed, plan, generator)):
        seen = observed[batch]
        outputs = forward(parameters, x[batch], dropout=plan.dropout, generator=generator)
        squared = masked_squared_error(outputs, y[batch], seen)
        loss = squared / seen.sum()
        loss = loss + proximal_term(parameters, received, plan.proximal_mu)
        optimizer.step(torch.autograd.grad(loss, weights))
        total += squared.detach()
        num_values += int(seen.sum())
    trained = {name: value.detach().numpy() for name, value in parameters.items()}
    if not all(np.isfinite(array).all() for array in trained.values()):
        raise diverged(plan)
    return trained, float(total) / max(num_values, 1)


def measured(targets: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return targets with zeros where they are missing, and where they were measured."""
    y = torch.from_numpy(targets)
    observed = torch.isfinite(y)
    return torch.where(observed, y, 0.0), observed


def epochs(
    observed: Tensor, plan: TrainingPlan, generator: torch.Generator
) -> Iterator[list[Tensor]]:
    """Return for each epoch the rows of each batch in which any target was measured.

    Rows are drawn at the start of each epoch, from the stream that dropout draws from too: a
    caller draws for all batches of one epoch before it asks for the next.

    Parameters
    ----------
    observed : Tensor of shape (n_specimens, n_targets), bool
    plan : TrainingPlan
    generator : torch.Generator
    """
    # as a rule nothing is missing, and no batch needs to be looked at; the length of a tensor takes
    # longer to ask for than its shape
    num_specimens = observed.shape[0]
    complete = num_specimens > 0 and bool(observed.any(dim=1).all())
    for _ in range(plan.epochs):
        order = torch.randperm(num_specimens, generator=generator)
        batches = torch.split(order, plan.batch_size)
        yield [batch for batch in batches if complete or observed[batch].any()]


def masked_squared_error(
    outputs: Tensor, targets: Tensor, observed: Tensor, dim: tuple[int, ...] = ()
) -> Tensor:
    """Sum the squared errors where a target was measured.

    Parameters
    ----------
    outputs, targets : Tensor of shape (n_specimens, n_targets), standardised
    observed : Tensor of shape (n_specimens, n_targets), bool
    dim : tuple of int
        Axes to sum over, where the arrays are stacks; all by default.

    Examples
    --------
    >>> outputs, observed = torch.tensor([[3.0, 9.0]]), torch.tensor([[True, False]])
    >>> masked_squared_error(outputs, torch.zeros(1, 2), observed)
    tensor(9.)
    """
    return (torch.where(observed, outputs - targets, 0.0) ** 2).sum(dim)


def proximal_term(
    parameters: Mapping[str, Tensor], received: Mapping[str, Tensor], mu: float
) -> Tensor | float:
    """Return FedProx's term: mu/2 times the squared distance to the head that was received.

    Examples
    --------
    >>> proximal_term({"bias": torch.tensor([3.0])}, {"bias": torch.tensor([1.0])}, 0.5)
    tensor(1.)
    """
    if mu == 0.0:
        return 0.0
    distance = sum(((parameters[name] - received[name]) ** 2).sum() for name in parameters)
    return 0.5 * mu * distance


def diverged(plan: TrainingPlan) -> DivergedError:
    """Return the error of a head that is not finite after its training."""
    return DivergedError(
        f"training diverged: the head is not finite after {plan.epochs} epochs at a learning "
        f"rate of {plan.learning_rate:g}; choose a smaller training.learning_rate"
    )
