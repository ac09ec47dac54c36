"""A lab that takes part in a run: everything is made ready, then the link is kept up to the end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from flwr.app import Context, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.answering import Answerer
from client.app import client_app
from client.gate import Gate
from client.keeping import judge_kept
from client.lab import Lab
from client.link import Link
from client.membership import Membership
from client.opening import open_lab
from client.policy import load_policy
from client.sent_log import SentLog
from common.errors import LinkError, PolicyError
from common.messages import max_message_bytes
from common.stopping import StopSignals

log = logging.getLogger(__name__)

NODE = 2
"""A lab is one node, and knows of no other."""


def take_part(membership: Membership, patience: float, signals: StopSignals) -> Path:
    """Answer the coordinator until the run is over and the lab has kept its model.

    Parameters
    ----------
    membership : Membership
    patience : float
        Seconds to try while the coordinator cannot be reached; infinity for a service.
    signals : StopSignals
        Put off while a reply is written down.

    Returns
    -------
    Path
        The folder of the shared model.

    Raises
    ------
    CrossplyError
        If the lab's folder, state, policy or agreement cannot be used, if the coordinator is not
        reached or refuses the lab, or if the run ends without this lab.
    """
    federation = membership.federation()
    policy = load_policy(membership.policy_path, federation)
    sent = SentLog(membership.log_path)
    log.info("reading %s", membership.data)
    lab = open_lab(membership.data, federation, membership.lab)
    lab = replace(
        lab,
        min_specimens=policy.min_specimens,
        name_in_card=policy.name_in_card,
        model_path=membership.model_path,
        judges_later=True,
    )
    if not lab.shared_targets.any():
        raise PolicyError(
            f"no target is measured on the {lab.needed} specimens that your policy asks for; "
            f"lower min_specimens in {membership.policy_path}, or measure more"
        )
    log.info("ready", extra={"specimens": len(lab.training) + len(lab.held_out)})
    gate = Gate(federation=federation, lab=membership.lab, policy=policy, log=sent)
    answerer = answerer_for(lab, gate, sent, signals.held)
    # what an earlier start was stopped at
    judge_kept(lab, membership.model_path)
    link = Link(
        membership=membership,
        answer=answerer.answer,
        patience=patience,
        has_model=lambda: membership.has_model and not answerer.trains,
        max_bytes=max_message_bytes(federation),
    )
    try:
        link.serve()
    except LinkError:
        # the model may have come, and nobody knows when the link will be up again
        judge_kept(lab, membership.model_path)
        raise
    log.info("the run is over", extra={"entries": len(sent), "last_hash": sent.last_hash})
    if answerer.trains or not membership.has_model:
        raise LinkError(
            "the run is over, and its model has not come to this lab; ask the coordinator, whose "
            "`crossply server status` says why"
        )
    judge_kept(lab, membership.model_path)
    return membership.model_path


def answerer_for(
    lab: Lab,
    gate: Gate,
    sent: SentLog,
    held: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Answerer:
    """Return what answers tasks for a lab: the app that simulations use too, behind the gate."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, NODE, 1
    return Answerer(
        app=client_app(lambda context: lab),
        context=Context(1, NODE, {}, RecordDict(), {}),
        gate=gate,
        sent=sent,
        held=held,
    )
