"""Training many labs' heads as one program: parameters stacked, products batched.

It is `client.training.train_head` for a list of tasks, with the same batches, dropout, loss and
optimizer, and equal to it within float error. Values lie transposed, (labs, units, specimens), so
that the gradient of a weight comes out in the weight's own layout.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from client.optimizer import OPTIMIZERS
from client.training import (
    TrainingPlan,
    TrainingTask,
    diverged,
    masked_squared_error,
    proximal_term,
)
from common.cores import usable_cores
from common.head import HeadArrays, run_layers
from common.threads import one_thread
from simulation.stacked_batches import StackedBatch, draw_batches, stacked_batches

Outcome: TypeAlias = tuple[HeadArrays, float] | Exception
"""A trained head and its loss, as `train_head` returns them, or what it raises."""

CHUNK_BYTES = {"cpu": 12 * 2**20, "cuda": 2 * 2**30}
"""Of heads, gradients, moments and specimens in one chunk: a processor's cache; much on a GPU."""


def train_heads(tasks: Sequence[TrainingTask], device: torch.device | None = None) -> list[Outcome]:
    """Train each task's head as `train_head` does, many at a time.

    Parameters
    ----------
    tasks : sequence of TrainingTask
        Those of one federation in one round share all but specimens and seed; others are trained
        apart.
    device : torch.device or None
        Where to compute; results come back as arrays. The processor if None.

    Returns
    -------
    list of (head, loss) or Exception
        One for each task; DivergedError where a head is not finite any more.
    """
    place = device or torch.device("cpu")
    groups: dict[object, list[int]] = {}
    for index, task in enumerate(tasks):
        groups.setdefault(_kind(task), []).append(index)
    chunks = []
    for alike in groups.values():
        largest = max(_num_bytes(tasks[index]) for index in alike)
        chunks += _chunks(alike, CHUNK_BYTES[place.type] // largest)
    outcomes: list[Outcome] = [RuntimeError("not trained")] * len(tasks)
    workers = usable_cores() if place.type == "cpu" else 1
    with one_thread(), ThreadPoolExecutor(workers) as pool:
        trained = pool.map(lambda chunk: _train_chunk([tasks[i] for i in chunk], place), chunks)
        for chunk, found in zip(chunks, trained, strict=True):
            for index, outcome in zip(chunk, found, strict=True):
                outcomes[index] = outcome
    return outcomes


def _kind(task: TrainingTask) -> object:
    shapes = tuple((name, array.shape, array.dtype) for name, array in task.head.items())
    return (
        shapes,
        (task.features.shape[1], task.features.dtype),
        (task.targets.shape[1], task.targets.dtype),
        replace(task.plan, seed=0),
    )


def _chunks(labs: Sequence[int], at_most: int) -> list[list[int]]:
    """Cut into parts as equal as can be, of which two cores get the same number.

    How many cores there are has no say: how labs are cut decides the last bits of their heads.
    """
    count = -(-len(labs) // max(1, at_most))
    count = min(count + count % 2, len(labs)) if count > 1 else count
    return [part.tolist() for part in np.array_split(labs, count)]


def _num_bytes(task: TrainingTask) -> int:
    """Return what a task takes: head, slopes and two moments; specimens; draws for all epochs."""
    head = sum(array.nbytes for array in task.head.values())
    widths = [array.size for array in task.head.values() if array.ndim == 1]
    hidden_units = sum(widths[:-1]) if task.plan.dropout else 0
    draws = task.plan.epochs * len(task.features) * (8 + hidden_units)
    return 4 * head + task.features.nbytes + draws


def _train_chunk(tasks: Sequence[TrainingTask], device: torch.device) -> list[Outcome]:
    try:
        drawn = [draw_batches(task) for task in tasks]
        # a lab that has taken its steps is then always among the last, where stacks are cut
        order = sorted(range(len(tasks)), key=lambda lab: -len(drawn[lab]))
        in_order = [tasks[lab] for lab in order]
        steps = stacked_batches(in_order, [drawn[lab] for lab in order], device)
        found = dict(zip(order, _train_in_order(in_order, steps, device), strict=True))
    except Exception as error:
        # what one chunk runs into, memory say, must not end the other labs' round
        return [error] * len(tasks)
    return [found[lab] for lab in range(len(tasks))]


def _train_in_order(
    tasks: Sequence[TrainingTask], steps: Iterable[StackedBatch], device: torch.device
) -> list[Outcome]:
    plan = tasks[0].plan
    trained = _stacked([task.head for task in tasks], device)
    received = {
        name: value.clone() if plan.proximal_mu else value for name, value in trained.items()
    }
    active = {name: value.detach().requires_grad_() for name, value in trained.items()}
    optimizer = OPTIMIZERS[plan.optimizer](
        list(active.values()), plan.learning_rate, plan.weight_decay
    )
    total = torch.zeros(len(tasks), dtype=torch.float64, device=device)
    num_values = torch.zeros(len(tasks), dtype=torch.int64, device=device)
    num_active = len(tasks)
    for batch in steps:
        if len(batch.x) < num_active:
            num_active = len(batch.x)
            received = {name: value[:num_active] for name, value in received.items()}
            active = {n: v[:num_active].detach().requires_grad_() for n, v in trained.items()}
            optimizer.narrow(list(active.values()))
        outputs = run_layers(active, batch.x, batch.kept, dropout=plan.dropout, linear=_linear)
        squared = masked_squared_error(outputs, batch.y, batch.observed, dim=(1, 2))
        seen = batch.observed.sum((1, 2))
        loss = (squared / seen).sum() + proximal_term(active, received, plan.proximal_mu)
        optimizer.step(torch.autograd.grad(loss, list(active.values())))
        total[:num_active] += squared.detach()
        num_values[:num_active] += seen
    losses = (total / num_values.clamp(min=1)).tolist()
    return _outcomes({name: value.cpu() for name, value in trained.items()}, losses, plan)


def _outcomes(trained: dict[str, Tensor], losses: list[float], plan: TrainingPlan) -> list[Outcome]:
    arrays = {name: value.numpy() for name, value in trained.items()}
    finite = [np.isfinite(array).reshape(len(losses), -1).all(axis=1) for array in arrays.values()]
    whole = np.all(finite, axis=0)
    return [
        ({name: array[lab] for name, array in arrays.items()}, losses[lab])
        if whole[lab]
        else diverged(plan)
        for lab in range(len(losses))
    ]


def _linear(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.baddbmm(bias.unsqueeze(2), weight, values)


def _stacked(heads: Sequence[HeadArrays], device: torch.device) -> dict[str, Tensor]:
    return {
        name: torch.from_numpy(np.stack([head[name] for head in heads])).to(device)
        for name in heads[0]
    }
