"""Joining: a key is made here, the coordinator signs it, and the state folder is filled."""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from client.findings import printable
from client.membership import Membership, Settings, open_membership
from client.policy import DEFAULT_POLICY
from client.settings import require_lab
from client.tls import diagnose
from common.errors import ConfigurationError, EnrolmentError, LinkError, StateError
from common.federation import FILE_NAME, Federation, parse_federation
from common.files import write_atomically
from common.identity import identity_of
from common.invite import Invite
from common.link_pb2 import EnrolRequest
from common.link_pb2_grpc import LinkStub

TIMEOUT_S = 20.0


def agreement_of(invite: Invite) -> Federation:
    """Return the agreement that an invite carries.

    Raises
    ------
    EnrolmentError
        If it is not the one that its fingerprint says.
    """
    try:
        federation = parse_federation(invite.federation, "the invite")
    except ConfigurationError as error:
        raise EnrolmentError(f"the invite's agreement cannot be read: {error}") from error
    if federation.fingerprint() != invite.fingerprint:
        raise EnrolmentError(
            "the invite's agreement is not the one that its fingerprint says: it was altered; "
            "ask the coordinator to send it again"
        )
    return federation


def check_folders(data: Path, folder: Path) -> None:
    """Refuse folders that no lab can join with; nobody needs to be asked before that is mended.

    Raises
    ------
    ConfigurationError
        If the lab's folder holds no ``lab.toml``.
    StateError
        If the state folder is a member's already.
    """
    require_lab(data)
    if (folder / "membership.json").exists():
        raise StateError(
            f"{folder} has joined already: go on with `crossply lab start --state {folder}`, or "
            'name another folder with --state; where the lab\'s data lie stands under "data" in '
            f"{folder / 'membership.json'}, and may be corrected there"
        )


def join(invite: Invite, data: Path, folder: Path) -> Membership:
    """Enrol with an invite and fill the lab's state folder.

    The key is made first and kept, so that a join that is cut off may simply be tried again.

    Parameters
    ----------
    invite : Invite
    data : Path
        The lab's folder, which holds ``lab.toml``.
    folder : Path
        The state folder; made, readable by its owner alone.

    Raises
    ------
    StateError
        If the folder is a member's already.
    ConfigurationError
        If the lab's folder holds no ``lab.toml``.
    EnrolmentError
        If the coordinator refuses the invite.
    LinkError
        If the coordinator is not reached or not trusted.
    """
    check_folders(data, folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    key = _own_key(folder / "lab.key")
    certificate = _enrol(invite, key)
    write_atomically(folder / "ca.crt", invite.ca_certificate)
    write_atomically(folder / "lab.crt", certificate)
    write_atomically(folder / FILE_NAME, invite.federation)
    if not (folder / "policy.toml").exists():
        write_atomically(folder / "policy.toml", DEFAULT_POLICY)
    settings = Settings(
        lab=invite.lab,
        address=invite.address,
        fingerprint=invite.fingerprint,
        data=str(data.absolute()),
    )
    # last: a folder with this file is complete
    write_atomically(folder / "membership.json", settings.model_dump_json(indent=2))
    return open_membership(folder)


def _own_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Make the lab's key, or find the one of a join that was cut off."""
    if path.exists():
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError) as error:
            raise StateError(
                f"{path} cannot be read ({error}); remove it and join again"
            ) from error
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key
        raise StateError(f"{path} is no key of crossply; remove it and join again")
    made = ec.generate_private_key(ec.SECP256R1())
    pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_atomically(path, pem)
    path.chmod(0o600)
    return made


def _enrol(invite: Invite, key: ec.EllipticCurvePrivateKey) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, invite.lab)])
    request = x509.CertificateSigningRequestBuilder(subject).sign(key, hashes.SHA256())
    credentials = grpc.ssl_channel_credentials(
        invite.ca_certificate.encode(), invite.key.encode(), invite.certificate.encode()
    )
    with grpc.secure_channel(invite.address, credentials) as channel:
        try:
            reply = LinkStub(channel).Enrol(
                EnrolRequest(
                    token=invite.token,
                    certificate_request=request.public_bytes(Encoding.PEM),
                    version=version("crossply"),
                    fingerprint=invite.fingerprint,
                ),
                timeout=TIMEOUT_S,
            )
        except grpc.RpcError as error:
            raise _explained(invite, error) from error
    _check_certificate(reply.certificate, key, invite)
    return bytes(reply.certificate)


def _explained(invite: Invite, error: grpc.RpcError) -> EnrolmentError | LinkError:
    refused = {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.PERMISSION_DENIED}
    if error.code() in refused:
        return EnrolmentError(f"the coordinator refuses: {printable(str(error.details()))}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in (
            ("ca.crt", invite.ca_certificate),
            ("crt", invite.certificate),
            ("key", invite.key),
        ):
            write_atomically(folder / file, content)
        diagnosis = diagnose(invite.address, folder / "ca.crt", folder / "crt", folder / "key")
    if diagnosis is not None:
        return LinkError(diagnosis.sentence)
    return LinkError(f"{invite.address} does not answer as a coordinator does; try again")


def _check_certificate(pem: bytes, key: ec.EllipticCurvePrivateKey, invite: Invite) -> None:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        authority = x509.load_pem_x509_certificate(invite.ca_certificate.encode())
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise EnrolmentError(
            "what the coordinator signed is not of the authority in the invite; ask the coordinator"
        ) from error
    identity = identity_of(pem)
    if certificate.public_key() != key.public_key() or identity.role != "lab":
        raise EnrolmentError("the coordinator has signed another key than this lab's")
    if identity.name != invite.lab:
        raise EnrolmentError(f"the coordinator calls this lab {identity.name}, not {invite.lab}")
