"""Who a certificate says somebody is: a role and a name, in a URI of its subject."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, get_args

from cryptography import x509

from common.errors import LinkError

Role: TypeAlias = Literal["lab", "invite", "operator"]

SCHEME = "crossply://"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Whom a certificate was given to.

    Attributes
    ----------
    role : str
        ``lab``, ``invite`` (may enrol, and nothing else) or ``operator`` (the coordinator's
        probes).
    name : str
    serial : int
        Of the certificate.
    """

    role: Role
    name: str
    serial: int

    @property
    def uri(self) -> str:
        """The subject alternative name that stands for role and name.

        Examples
        --------
        >>> Identity(role="lab", name="iws-dresden", serial=7).uri
        'crossply://lab/iws-dresden'
        """
        return f"{SCHEME}{self.role}/{self.name}"


def identity_of(certificate_pem: bytes) -> Identity:
    """Read who a certificate was given to.

    Raises
    ------
    LinkError
        If it is no certificate, or none of crossply's.
    """
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (ValueError, x509.ExtensionNotFound) as error:
        raise LinkError("this is no certificate of crossply") from error
    for uri in uris:
        role, _, name = uri.removeprefix(SCHEME).partition("/")
        if uri.startswith(SCHEME) and role in get_args(Role) and name:
            return Identity(role=cast(Role, role), name=name, serial=certificate.serial_number)
    raise LinkError("the certificate names no role in crossply")
