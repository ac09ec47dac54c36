"""A lab that takes part in a run: everything is made ready, then the link is kept up to the end."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from flwr.app import Context, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.app import client_app
from client.lab import Lab
from client.link import Answerer, Link
from client.membership import Membership
from client.opening import open_lab
from client.policy import Gate, load_policy
from client.sent_log import SentLog
from common.bundle import FILE_NAME, Model
from common.errors import PolicyError, RequestError
from common.federation import Federation
from common.link_pb2 import Farewell
from common.messages import max_message_bytes, read_model
from common.stopping import StopSignals
from common.wire import from_content

log = logging.getLogger(__name__)

NODE = 2
"""A lab is one node, and knows of no other."""


def take_part(membership: Membership, patience: float, signals: StopSignals) -> Path:
    """Answer the coordinator until the run is over, and keep the model that it releases.

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
        The shared model.

    Raises
    ------
    CrossplyError
        If the lab's folder, state, policy or agreement cannot be used, or the coordinator is not
        reached or refuses the lab.
    """
    federation = membership.federation()
    policy = load_policy(membership.policy_path, federation)
    sent = SentLog(membership.log_path)
    log.info("reading %s", membership.data)
    lab = open_lab(membership.data, federation, membership.lab)
    lab = replace(lab, min_specimens=policy.min_specimens)
    if not lab.shared_targets.any():
        raise PolicyError(
            f"no target is measured on the {lab.needed} specimens that your policy asks for; "
            f"lower min_specimens in {membership.policy_path}, or measure more"
        )
    log.info("ready", extra={"specimens": len(lab.training) + len(lab.held_out)})
    gate = Gate(federation=federation, lab=membership.lab, policy=policy, log=sent)
    answerer = _answerer(lab, gate, sent, signals)
    farewell = Link(
        membership=membership,
        answer=answerer.answer,
        patience=patience,
        max_bytes=max_message_bytes(federation),
    ).serve()
    log.info("the run is over", extra={"entries": len(sent), "last_hash": sent.last_hash})
    return _keep(farewell, federation, membership)


def _answerer(lab: Lab, gate: Gate, sent: SentLog, signals: StopSignals) -> Answerer:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, NODE, 1
    return Answerer(
        app=client_app(lambda context: lab),
        context=Context(1, NODE, {}, RecordDict(), {}),
        gate=gate,
        sent=sent,
        held=signals.held,
    )


def _keep(farewell: Farewell, federation: Federation, membership: Membership) -> Path:
    record = from_content(farewell.release, RequestError)
    head, standardiser = read_model(record, federation)
    folder = membership.model_folder
    folder.mkdir(exist_ok=True, mode=0o700)
    model = Model(head=head, standardiser=standardiser, fingerprint=membership.fingerprint)
    model.save(folder / FILE_NAME)
    return folder / FILE_NAME
