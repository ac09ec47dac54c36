"""A Flower grid whose labs train together: one stacked program answers what many are asked.

Labs are asked for everything else one after the other, through the real ClientApp, and the
coordinator gets replies as from anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from flwr.app import Context, Message, RecordDict, UserConfig

from client.app import answered, client_app, plan_of_round, read_train_request
from client.lab import Lab
from client.training import TrainingTask
from common.federation import Federation
from common.messages import TRAIN, TrainReply, TrainRequest
from common.projection import projected
from simulation.grid import LABS_AT_ONCE, InProcessGrid
from simulation.stacked_training import Outcome, train_heads

KEPT_BYTES = 256 * 2**20
"""Of standardised features that are kept from round to round; other labs' are made anew."""

_Requests: TypeAlias = dict[tuple[int, int], tuple[Federation, TrainRequest]]
"""By the identity of a record and of the agreement that it was read under, which stays alive."""


class BatchedGrid(InProcessGrid):
    """Virtual labs, whose heads are trained together; equal to `InProcessGrid` but for rounding.

    Parameters
    ----------
    open_lab : callable
        Finds the lab of a node's context.
    node_configs : mapping of str to UserConfig
        Lab's name -> its node's configuration.
    device : torch.device or None
        Where heads are trained; the processor if None.
    run_id : int
    """

    def __init__(
        self,
        open_lab: Callable[[Context], Lab],
        node_configs: Mapping[str, UserConfig],
        *,
        device: torch.device | None = None,
        run_id: int = 1,
    ) -> None:
        super().__init__(client_app(open_lab), node_configs, run_id)
        self._open_lab = open_lab
        self._device = device
        self._known: TrainRequest | None = None
        self._tables: dict[int, _Table] = {}
        self._kept_bytes = 0

    def _answer(self, messages: Sequence[Message]) -> None:
        training = [message for message in messages if message.metadata.message_type == TRAIN]
        for start in range(0, len(training), LABS_AT_ONCE):
            self._train(training[start : start + LABS_AT_ONCE])
        if not training:
            # the rounds are over, or have not begun: what is asked now takes memory of its own
            self._tables.clear()
            self._kept_bytes = 0
        super()._answer([m for m in messages if m.metadata.message_type != TRAIN])

    def _train(self, messages: Sequence[Message]) -> None:
        read: _Requests = {}
        tasks: dict[str, TrainingTask] = {}
        told: dict[str, TrainReply | Exception] = {}
        for message in messages:
            try:
                tasks[message.metadata.message_id] = self._task(message, read)
            except Exception as error:
                # it becomes a code below, as in a lab's own ClientApp
                told[message.metadata.message_id] = error
        outcomes = train_heads(list(tasks.values()), self._device)
        for (id_, task), outcome in zip(tasks.items(), outcomes, strict=True):
            told[id_] = _reply(outcome, len(task.features))
        for message in messages:
            id_ = message.metadata.message_id
            self._replies[id_] = answered(message, partial(_record, told[id_]))

    def _task(self, message: Message, read: _Requests) -> TrainingTask:
        """Return what a lab is to train; labs that are sent one record read it once."""
        node = message.metadata.dst_node_id
        lab = self._open_lab(self._contexts[node])
        key = (id(message.content), id(lab.federation))
        if key not in read:
            request = read_train_request(lab, message.content)
            read[key] = (lab.federation, self._with_known_inputs(request))
        _, request = read[key]
        table = self._tables.get(node)
        if table is None or not table.shows(lab, request):
            table = _Table.of(lab, request)
            self._keep(node, table)
        return TrainingTask(
            head=request.head,
            features=table.features,
            targets=table.targets,
            plan=plan_of_round(lab, request),
        )

    def _with_known_inputs(self, request: TrainRequest) -> TrainRequest:
        """Return the request with the very arrays that specimens were standardised by before."""
        known = self._known
        if known is None or not _same_inputs(known, request):
            self._known = request
            return request
        return replace(request, standardiser=known.standardiser, projection=known.projection)

    def _keep(self, node: int, table: _Table) -> None:
        replaced = self._tables.pop(node, None)
        if replaced is not None:
            self._kept_bytes -= replaced.features.nbytes
        if self._kept_bytes + table.features.nbytes <= KEPT_BYTES:
            self._tables[node] = table
            self._kept_bytes += table.features.nbytes


@dataclass(frozen=True, kw_only=True)
class _Table:
    """A lab's training specimens, standardised and projected."""

    lab: Lab
    request: TrainRequest
    features: np.ndarray
    targets: np.ndarray

    @classmethod
    def of(cls, lab: Lab, request: TrainRequest) -> _Table:
        standardised = request.standardiser.features(lab.training.features)
        return cls(
            lab=lab,
            request=request,
            features=projected(standardised, request.projection),
            targets=request.standardiser.targets(lab.shared_training_targets),
        )

    def shows(self, lab: Lab, request: TrainRequest) -> bool:
        """Return whether it is of this lab, and of what the request is to be trained on."""
        ours = self.request
        same = ours.standardiser is request.standardiser and ours.projection is request.projection
        return same and self.lab is lab


def _same_inputs(one: TrainRequest, other: TrainRequest) -> bool:
    before, now = (
        [*vars(request.standardiser).values(), request.projection] for request in (one, other)
    )
    return all(map(np.array_equal, before, now))


def _reply(outcome: Outcome, num_examples: int) -> TrainReply | Exception:
    if isinstance(outcome, Exception):
        return outcome
    head, loss = outcome
    return TrainReply(head=head, num_examples=num_examples, train_loss=loss)


def _record(told: TrainReply | Exception) -> RecordDict:
    if isinstance(told, Exception):
        raise told
    return told.to_record()
