"""The coordinator's certificate authority: ECDSA P-256, one for each coordinator (RFC 5280)."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

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
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.errors import EnrolmentError, StateError
from common.files import write_atomically
from common.identity import Identity

CA_LIFETIME = timedelta(days=3650)
SERVER_LIFETIME = timedelta(days=365)
LAB_LIFETIME = timedelta(days=730)
RENEW_BEFORE = timedelta(days=30)

BACKDATED = timedelta(hours=1)
"""Clocks differ: a certificate is good a little before it was made."""


class Authority:
    """Signs for one coordinator, with the key in its state folder.

    Parameters
    ----------
    folder : Path
        Holds ``ca.crt`` and ``ca.key``, made by `create`.

    Raises
    ------
    StateError
        If they are missing or unreadable.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._certificate = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
            key = load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
        except (OSError, ValueError) as error:
            raise StateError(
                f"the coordinator's key in {folder} cannot be read ({error}); restore ca.crt and "
                "ca.key from a copy, or make a new state folder and new invites"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise StateError(f"{folder / 'ca.key'} is no key of crossply")
        self._key = key

    @classmethod
    def create(cls, folder: Path, name: str) -> Authority:
        """Make the authority's key and certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"crossply {name}"[:64])])
        certificate = (
            _builder(subject, subject, key.public_key(), CA_LIFETIME)
            .serial_number(new_serial())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        write_key(folder / "ca.key", key)
        write_atomically(folder / "ca.crt", certificate.public_bytes(Encoding.PEM))
        return cls(folder)

    @property
    def certificate_pem(self) -> bytes:
        """The authority's certificate, which labs trust."""
        return self._certificate.public_bytes(Encoding.PEM)

    def renew_server_certificate(self, host: str) -> None:
        """Write ``server.crt`` and ``server.key``, unless they are there and good for a month."""
        path = self._folder / "server.crt"
        if self._server_pair_is_good():
            return
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            self._leaf(host, key.public_key(), SERVER_LIFETIME)
            .serial_number(new_serial())
            .add_extension(x509.SubjectAlternativeName([_host_name(host)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        # the key first: a kill in between leaves a pair that does not fit, and is made again
        path.unlink(missing_ok=True)
        write_key(self._folder / "server.key", key)
        write_atomically(path, certificate.public_bytes(Encoding.PEM))

    def _server_pair_is_good(self) -> bool:
        try:
            present = x509.load_pem_x509_certificate((self._folder / "server.crt").read_bytes())
            key = load_pem_private_key((self._folder / "server.key").read_bytes(), password=None)
        except (OSError, ValueError, TypeError):
            # gone, cut or altered: another is made, and no lab needs to know
            return False
        lasts = present.not_valid_after_utc - datetime.now(UTC) > RENEW_BEFORE
        return lasts and present.public_key() == key.public_key()

    def issue(
        self, identity: Identity, key: ec.EllipticCurvePublicKey, lifetime: timedelta
    ) -> bytes:
        """Return a client certificate, in PEM, for whoever holds the key.

        Its serial number is the identity's.
        """
        certificate = (
            self._leaf(identity.name, key, lifetime)
            .serial_number(identity.serial)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity.uri)]),
                critical=False,
            )
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(Encoding.PEM)

    def _leaf(
        self, name: str, key: ec.EllipticCurvePublicKey, lifetime: timedelta
    ) -> x509.CertificateBuilder:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
        return (
            _builder(subject, self._certificate.subject, key, lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )


def requested_key(request_pem: bytes) -> ec.EllipticCurvePublicKey:
    """Return the public key of a certificate request whose sender holds the private one.

    Raises
    ------
    EnrolmentError
        If it is no request, is not signed with its own key, or the key is of another kind.
    """
    try:
        request = x509.load_pem_x509_csr(request_pem)
        key = request.public_key()
        if not request.is_signature_valid or not isinstance(key, ec.EllipticCurvePublicKey):
            raise EnrolmentError("the certificate request is not signed with an ECDSA key")
    except (ValueError, InvalidSignature) as error:
        raise EnrolmentError("the certificate request cannot be read") from error
    if not isinstance(key.curve, ec.SECP256R1):
        raise EnrolmentError("the certificate request is for a key that is not on P-256")
    return key


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write a private key that its owner alone can read."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_atomically(path, pem)
    path.chmod(0o600)


def new_serial() -> int:
    """Return a serial number that nobody can guess."""
    return x509.random_serial_number()


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer,
        public_key=key,
        serial_number=None,
        not_valid_before=now - BACKDATED,
        not_valid_after=now + lifetime,
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
