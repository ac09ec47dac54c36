"""The batches of many labs side by side, short ones filled up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from client.training import TrainingTask, epochs, measured
from common.head import draw_kept_in_batches, hidden_widths

Drawn: TypeAlias = tuple[Tensor, list[Tensor]]
"""Rows of one batch, and which units of each hidden layer are kept for each of them."""


@dataclass(frozen=True, kw_only=True)
class StackedBatch:
    """One batch of each lab that has one left.

    Attributes
    ----------
    x : Tensor of shape (n_labs, n_features, n_specimens)
        Short batches are filled up with zeros of which nothing is observed.
    y, observed : Tensor of shape (n_labs, n_targets, n_specimens)
    kept : list of Tensor of shape (n_labs, width, n_specimens), bool
    """

    x: Tensor
    y: Tensor
    observed: Tensor
    kept: list[Tensor]


def draw_batches(task: TrainingTask) -> list[Drawn]:
    """Draw a task's batches and dropout, all that `train_head` would draw, in its order."""
    generator = torch.Generator().manual_seed(task.plan.seed)
    widths = hidden_widths(task.head)
    observed = torch.isfinite(torch.from_numpy(task.targets))
    drawn: list[Drawn] = []
    for batches in epochs(observed, task.plan, generator):
        sizes = [rows.shape[0] for rows in batches]
        kept = draw_kept_in_batches(widths, sizes, task.plan.dropout, generator)
        drawn += zip(batches, kept, strict=True)
    return drawn


def stacked_batches(
    tasks: Sequence[TrainingTask], drawn: Sequence[list[Drawn]], device: torch.device
) -> Iterator[StackedBatch]:
    """Yield the labs' first batches, their second, and so on, of ever fewer labs.

    Parameters
    ----------
    tasks : sequence of TrainingTask
    drawn : sequence of list
        What `draw_batches` gives for each task, the longest list first: a lab that has no batch
        left is then among the last, and the stack is cut before it.
    device : torch.device
    """
    sizes = [len(task.features) for task in tasks]
    offsets, filler = [0, *accumulate(sizes)], sum(sizes)
    x = _with_filler([task.features for task in tasks]).to(device)
    targets = _with_filler([task.targets for task in tasks])
    targets[filler] = torch.nan
    y, observed = (part.to(device) for part in measured(targets.numpy()))
    present = [
        [steps[step] for steps in drawn if len(steps) > step] for step in range(len(drawn[0]))
    ]
    lengths = [len(labs) for labs in present]
    # one call for all steps: so many small ones would take as long as the products
    everything = [one for labs in present for one in labs]
    if not everything:
        return
    padded = pad_sequence([rows for rows, _ in everything], True, -1)
    # whoever has a batch left stands before those that have none
    starts = torch.tensor([offset for length in lengths for offset in offsets[:length]])
    all_rows = torch.where(padded < 0, filler, padded + starts.unsqueeze(1)).to(device)
    layers = zip(*(kept for _, kept in everything), strict=True)
    all_kept = [torch.split(pad_sequence(list(kept), True).to(device), lengths) for kept in layers]
    of_steps = zip(
        torch.split(all_rows, lengths),
        torch.split(y[all_rows], lengths),
        torch.split(observed[all_rows], lengths),
        strict=True,
    )
    for step, (rows, values, seen) in enumerate(of_steps):
        width = max(own.shape[0] for own, _ in present[step])
        chosen = x.index_select(0, rows[:, :width].flatten())
        yield StackedBatch(
            x=chosen.view(len(rows), width, -1).mT,
            y=values[:, :width].mT,
            observed=seen[:, :width].mT,
            kept=[kept[step][:, :width].mT for kept in all_kept],
        )


def _with_filler(tables: Sequence[np.ndarray]) -> Tensor:
    filler = np.zeros((1, tables[0].shape[1]), tables[0].dtype)
    return torch.from_numpy(np.concatenate([*tables, filler]))
