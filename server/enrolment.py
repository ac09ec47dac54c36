"""Enrolling labs: an invite goes out, a certificate request comes in, a certificate goes back.

After the model of RFC 7030 (EST): whoever asks is let in by a certificate that is good for asking
alone, so that a stranger does not get past the TLS handshake.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from common.errors import ConfigurationError, EnrolmentError
from common.files import write_atomically
from common.identity import Identity
from common.invite import Invite
from common.lab_names import LAB_NAME
from common.link_pb2 import EnrolReply, EnrolRequest
from server.authority import LAB_LIFETIME, Authority, new_serial, requested_key
from server.register import Invited, Register
from server.state_folder import Coordination

log = logging.getLogger(__name__)

BOOTSTRAP_GRACE = timedelta(days=365)
"""The certificate in an invite outlives its token, so that a late lab is told why it is refused."""


def write_invite(
    state: Coordination, name: str, valid: timedelta, path: Path | None = None
) -> Invite:
    """Make an invite, write it to a file if one is named, and note it in the register.

    The file comes first, and goes again if the register does not take the invite: the name is
    not taken by an invite that nobody has.

    Parameters
    ----------
    state : Coordination
    name : str
        Of the lab.
    valid : timedelta
    path : Path or None
        A file that is not there yet.

    Raises
    ------
    EnrolmentError
        If the name cannot be a lab's, or is taken.
    StateError
        If the agreement has been edited.
    ConfigurationError
        If the file cannot be written.
    """
    if LAB_NAME.fullmatch(name) is None:
        raise EnrolmentError(
            f"{name!r} cannot be a lab's name: use lower-case letters, digits and hyphens, "
            "40 at most, as in iws-dresden"
        )
    # an agreement that has been edited is not sent out
    state.federation()
    token, invite_id = secrets.token_urlsafe(32), secrets.token_hex(8)
    expires = datetime.now(UTC) + valid
    key = ec.generate_private_key(ec.SECP256R1())
    identity = Identity(role="invite", name=invite_id, serial=new_serial())
    authority = Authority(state.folder)
    certificate = authority.issue(identity, key.public_key(), valid + BOOTSTRAP_GRACE)
    invite = Invite(
        lab=name,
        address=state.address,
        token=token,
        expires=expires,
        ca_certificate=authority.certificate_pem.decode(),
        certificate=certificate.decode(),
        key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        federation=state.federation_path.read_text(encoding="utf-8"),
        fingerprint=state.fingerprint,
    )
    digest = hashlib.sha256(token.encode()).hexdigest()
    noted = Invited(id=invite_id, name=name, token_sha256=digest, expires=expires)
    with nullcontext() if path is None else _written(path, invite):
        Register(state.folder).add_invite(noted)
    return invite


@contextmanager
def _written(path: Path, invite: Invite) -> Iterator[None]:
    """Write an invite to a file, which stays if the block comes to its end."""
    try:
        write_atomically(path, invite.model_dump_json(indent=2))
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror}; name another with --out FILE"
        ) from error
    try:
        yield
    except BaseException:
        path.unlink()
        raise


class Enrolment:
    """Answers labs that come with an invite.

    Parameters
    ----------
    authority : Authority
    register : Register
    fingerprint : str
        Of the agreement that a lab must have accepted.
    """

    def __init__(self, authority: Authority, register: Register, fingerprint: str) -> None:
        self._authority = authority
        self._register = register
        self._fingerprint = fingerprint

    def enrol(self, identity: Identity, request: EnrolRequest) -> EnrolReply:
        """Sign a lab's key, once for each invite.

        Raises
        ------
        EnrolmentError
            If the invite is used, expired, revoked or altered, if the request cannot be read,
            or if version or agreement differ.
        """
        if request.version != version("crossply"):
            raise EnrolmentError(
                f"you run crossply {request.version[:20]} and the coordinator "
                f"{version('crossply')}; install the same version"
            )
        if request.fingerprint != self._fingerprint:
            raise EnrolmentError(
                f"you accepted the agreement {request.fingerprint[:12]} and the coordinator's is "
                f"{self._fingerprint[:12]}; ask for a new invite"
            )
        key = requested_key(request.certificate_request)
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

        def issue(name: str) -> tuple[int, bytes]:
            of_lab = Identity(role="lab", name=name, serial=new_serial())
            return of_lab.serial, self._authority.issue(of_lab, key, LAB_LIFETIME)

        lab = self._register.enrol(
            identity.name, request.token, hashlib.sha256(spki).hexdigest(), issue
        )
        log.info("a lab has enrolled", extra={"lab": lab.name})
        return EnrolReply(certificate=lab.certificate.encode())
