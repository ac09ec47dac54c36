"""What `crossply lab doctor` looks at before a lab takes part; nothing about the data is sent."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version

import grpc
import torch
from cryptography import x509

from client.dataset import check_folder
from client.feature_store import default_folder
from client.findings import Findings, printable
from client.held_out import check_held_out
from client.membership import Membership
from client.policy import load_policy
from client.reference import check_reference
from client.sent_log import verified
from client.tls import diagnose
from common.errors import CrossplyError, LinkError
from common.federation import Federation
from common.link_pb2 import LookReply, LookRequest
from common.link_pb2_grpc import LinkStub

CLOCK_SKEW_S = 60.0
DAYS_LEFT = 30
FREE_BYTES = 1_000_000_000
TIMEOUT_S = 10.0


def examine(membership: Membership, clock: Callable[[], float] = time.time) -> Findings:
    """Look at all that taking part needs.

    Parameters
    ----------
    membership : Membership
    clock : callable
        This computer's time, in seconds since 1970.
    """
    findings = Findings()
    federation = _examine_agreement(membership, findings)
    _examine_certificate(membership, findings)
    reached = _examine_connection(membership, findings)
    if reached is not None:
        compare(reached, membership, findings, clock())
    _examine_disk(membership, findings)
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU, no GPU"
    findings.passed("device", f"{device}; torch {torch.__version__}, flwr {version('flwr')}")
    if federation is not None:
        _examine_data(membership, federation, findings)
        check_reference(federation, findings)
    return findings


def compare(reached: LookReply, membership: Membership, findings: Findings, now: float) -> None:
    """Compare the coordinator's clock, version and agreement with this lab's."""
    skew = now - reached.time
    if abs(skew) > CLOCK_SKEW_S:
        findings.fix(
            "clock",
            f"this computer's clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'} of "
            "the coordinator's",
            "set it by the network; certificates have dates, nothing else depends on it",
        )
    else:
        findings.passed("clock", "agrees with the coordinator's to a minute")
    if reached.version != version("crossply"):
        findings.stop(
            "version",
            f"crossply {version('crossply')} here, {printable(reached.version)} at the coordinator",
            "install the same version",
        )
    if reached.fingerprint != membership.fingerprint:
        findings.stop(
            "agreement",
            f"{membership.fingerprint[:12]} here, {printable(reached.fingerprint[:12])} at the "
            "coordinator",
            "ask for a new invite",
        )


def _examine_agreement(membership: Membership, findings: Findings) -> Federation | None:
    try:
        federation = membership.federation()
        findings.passed("agreement", f"{federation.name}, {membership.fingerprint[:12]}")
        policy = load_policy(membership.policy_path, federation)
        if policy.rounds_per_day < (rounds := federation.training.rounds):
            findings.fix(
                "policy.toml",
                f"the run has {rounds} rounds, and {policy.rounds_per_day} are answered a day",
                "raise rounds_per_day, or the run waits for this lab until the next day",
            )
        else:
            findings.passed("policy.toml", "can be read")
        entries = verified(membership.log_path)
        findings.passed("sent.jsonl", f"{len(entries)} messages, unbroken")
    except CrossplyError as error:
        findings.refuse("state folder", error)
        return None
    return federation


def _examine_certificate(membership: Membership, findings: Findings) -> None:
    try:
        certificate = x509.load_pem_x509_certificate(membership.certificate_path.read_bytes())
    except (OSError, ValueError):
        findings.stop("lab.crt", "the certificate cannot be read", "join again with a new invite")
        return
    left = (certificate.not_valid_after_utc - datetime.now(UTC)).days
    if left < DAYS_LEFT:
        findings.fix(
            "lab.crt",
            f"this lab's certificate ends in {left} days",
            "ask the coordinator to revoke this lab and to send a new invite",
        )
    else:
        findings.passed("lab.crt", f"good for {left} days")


def _examine_connection(membership: Membership, findings: Findings) -> LookReply | None:
    diagnosis = diagnose(
        membership.address,
        membership.ca_path,
        membership.certificate_path,
        membership.key_path,
    )
    if diagnosis is not None:
        findings.refuse("connection", LinkError(diagnosis.sentence))
        return None
    with grpc.secure_channel(membership.address, membership.credentials()) as channel:
        try:
            reached: LookReply = LinkStub(channel).Look(LookRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            details = printable(str(error.details()))
            findings.refuse("connection", LinkError(f"the coordinator refuses: {details}"))
            return None
    findings.passed(
        "connection",
        f"{membership.address}, TLS 1.3 both ways; {printable(reached.phase)}, round "
        f"{reached.server_round} of {reached.num_rounds}",
    )
    return reached


def _examine_disk(membership: Membership, findings: Findings) -> None:
    for name, folder in (("state folder", membership.folder), ("feature cache", default_folder())):
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        if free < FREE_BYTES:
            findings.fix(name, f"{free / 1e6:.0f} MB are free", "make room: 1 GB is comfortable")
        else:
            findings.passed(name, f"{free / 1e9:.0f} GB are free")


def _examine_data(membership: Membership, federation: Federation, findings: Findings) -> None:
    try:
        dataset, found = check_folder(membership.data, federation, decode=False)
        if dataset is not None:
            check_held_out(dataset, federation, found, membership.lab)
    except CrossplyError as error:
        findings.refuse("data", error)
        return
    findings.items.extend(found.items)
