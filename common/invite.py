"""An invite: one file that a coordinator sends to a lab, with all that the lab needs to join."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, Field, ValidationError

from common.address import split_address
from common.configuration import Section
from common.errors import ConfigurationError, EnrolmentError

MAX_BYTES = 1_000_000


class Invite(Section):
    """What stands in an invite.

    The certificate and its key open the coordinator's door for enrolling and nothing else; the
    token is good once, until it expires.
    """

    format: Literal["crossply-invite-1"] = "crossply-invite-1"
    lab: str = Field(max_length=40)
    address: str = Field(max_length=300)
    token: str = Field(max_length=200)
    expires: AwareDatetime
    ca_certificate: str
    certificate: str
    key: str
    federation: str
    """The federation file, as it stands."""

    fingerprint: str
    """Of that file."""


def read_invite(path: Path, now: datetime | None = None) -> Invite:
    """Read an invite.

    Raises
    ------
    EnrolmentError
        If the file is no invite, is cut or altered, or has expired.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise EnrolmentError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise EnrolmentError(f"{path} is no invite: it is larger than {MAX_BYTES} bytes")
    try:
        invite = Invite.model_validate_json(content, strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise EnrolmentError(
            f"{path} is no invite, or was cut or altered ({where}: {first['msg']}); "
            "ask the coordinator to send it again"
        ) from error
    try:
        split_address(invite.address)
    except ConfigurationError as error:
        raise EnrolmentError(f"{path} was altered: {error}") from error
    if not invite.lab.isprintable():
        raise EnrolmentError(f"{path} was altered: {invite.lab!r} is no lab's name")
    if invite.expires < (now or datetime.now(UTC)):
        raise EnrolmentError(
            f"the invite of {invite.lab} expired on {invite.expires:%Y-%m-%d %H:%M} UTC; "
            "ask the coordinator for a new one"
        )
    return invite
