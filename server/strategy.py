"""Flower's strategies by name, and the screen that every reply passes before they see it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    Strategy,
)

from common.errors import NO_REPLY, ReplyError, known_code
from common.federation import STRATEGY_OPTIONS, Training
from server.grid import UnreadableError

log = logging.getLogger(__name__)

STRATEGIES: dict[str, tuple[Callable[..., Strategy], dict[str, tuple[str, float]]]] = {
    # our name of an option -> Flower's name of it, and its value where the file gives none
    "fedavg": (FedAvg, {}),
    "fedprox": (FedProx, {"proximal_mu": ("proximal_mu", 0.01)}),
    "fedavgm": (
        FedAvgM,
        {
            "server_learning_rate": ("server_learning_rate", 1.0),
            "server_momentum": ("server_momentum", 0.5),
        },
    ),
    "fedadam": (FedAdam, {"server_learning_rate": ("eta", 0.01)}),
    "fedyogi": (FedYogi, {"server_learning_rate": ("eta", 0.01)}),
    "trimmed_mean": (FedTrimmedAvg, {"trim_fraction": ("beta", 0.2)}),
    "median": (FedMedian, {}),
    "krum": (Krum, {"num_malicious": ("num_malicious_nodes", 1)}),
}


def make_strategy(training: Training) -> Strategy:
    """Return Flower's strategy of the name in the federation file, with its options.

    Every node is asked in every round: which labs count is decided by the coordinator's own
    screen and quorum, since Flower's sampling waits for nodes without a bound.

    Examples
    --------
    >>> make_strategy(Training(strategy="fedprox", proximal_mu=0.1)).proximal_mu
    0.1
    """
    build, options = STRATEGIES[training.strategy]
    chosen: dict[str, Any] = {}
    for option in STRATEGY_OPTIONS[training.strategy]:
        flower_name, default = options[option]
        value = getattr(training, option)
        chosen[flower_name] = default if value is None else value
    return build(
        min_train_nodes=1,
        min_evaluate_nodes=1,
        min_available_nodes=1,
        train_metrics_aggr_fn=_no_metrics,
        **chosen,
    )


def _no_metrics(contents: list[RecordDict], weighted_by: str) -> MetricRecord:
    """Average no metrics: a round's loss is `server.aggregation.mean_loss`, from those who tell."""
    return MetricRecord()


ROBUST = (FedTrimmedAvg, FedMedian, Krum)
"""Strategies that leave out what stands apart."""

MOMENTS = ("m_t", "v_t", "momentum_vector")
"""What Flower's strategies carry from one round to the next, beside the head itself."""


def optimizer_state(strategy: Strategy) -> dict[str, np.ndarray]:
    """Return what a strategy would lose with the process, as named arrays.

    Examples
    --------
    >>> strategy = make_strategy(Training(strategy="fedavgm"))
    >>> strategy.momentum_vector = [np.ones(2)]
    >>> optimizer_state(strategy)
    {'momentum_vector/0': array([1., 1.])}
    """
    state: dict[str, np.ndarray] = {}
    for attribute in MOMENTS:
        held = getattr(strategy, attribute, None)
        if isinstance(held, Mapping):
            state |= {f"{attribute}/{name}": np.asarray(array) for name, array in held.items()}
        elif held is not None:
            state |= {f"{attribute}/{index}": np.asarray(a) for index, a in enumerate(held)}
    return state


def restore_optimizer(strategy: Strategy, state: Mapping[str, np.ndarray]) -> None:
    """Give a new strategy what another one carried.

    Examples
    --------
    >>> strategy = make_strategy(Training(strategy="fedadam"))
    >>> restore_optimizer(strategy, {"m_t/bias": np.ones(2)})
    >>> strategy.m_t
    {'bias': array([1., 1.])}
    """
    held: dict[str, dict[str, np.ndarray]] = {}
    for key, array in state.items():
        attribute, name = key.split("/", 1)
        held.setdefault(attribute, {})[name] = array
    for attribute, arrays in held.items():
        in_order = [arrays[str(index)] for index in range(len(arrays))] if "0" in arrays else arrays
        setattr(strategy, attribute, in_order)


@dataclass(frozen=True, kw_only=True)
class Screened:
    """The replies to one set of requests, sorted; each is a dictionary by node.

    Attributes
    ----------
    accepted : dict of int to Message
    broken : dict of int to str
        How a reply breaks the schema.
    failed : dict of int to str
        The code of the error that a lab reported, or that it did not answer in time.
    """

    accepted: dict[int, Message]
    broken: dict[int, str]
    failed: dict[int, str]

    def add(self, others: Screened) -> None:
        """Add the replies to other requests."""
        self.accepted.update(others.accepted)
        self.broken.update(others.broken)
        self.failed.update(others.failed)


def check_replies(
    replies: Iterable[Message], check: Callable[[int, Message], None], asked: Mapping[str, int]
) -> Screened:
    """Sort replies into those that count, those that break the schema, and those that fail.

    Parameters
    ----------
    replies : iterable of Message
    check : callable
        Given a node and its reply, raises ReplyError if the reply breaks the schema.
    asked : mapping of str to int
        Message id of each request -> node that it was sent to. Replies are attributed by it:
        what stands in a reply as its source is the sender's word. A second reply to one
        request, and a reply to no request, do not count.
    """
    screened = Screened(accepted={}, broken={}, failed=dict.fromkeys(asked.values(), NO_REPLY))
    waiting = dict(asked)
    for reply in replies:
        node = waiting.pop(reply.metadata.reply_to_message_id, None)
        if node is None:
            continue
        del screened.failed[node]
        try:
            if reply.has_error() and isinstance(reply.error, UnreadableError):
                raise ReplyError(str(reply.error.reason))
            if reply.has_error():
                screened.failed[node] = known_code(reply.error.reason)
            else:
                check(node, reply)
                screened.accepted[node] = reply
        except ReplyError as error:
            screened.broken[node] = str(error)
        except Exception as error:
            # whatever a lab's content brings about, it costs that lab alone
            log.exception("the reply of node %d cannot be checked", node)
            screened.broken[node] = f"its reply cannot be checked ({type(error).__name__})"
    return screened
