"""Who has been invited, who is enrolled, and who is out: ``register.json``.

Several processes use it at once (`invite` and `revoke` beside a running coordinator), so that each
change reads, changes and writes the whole file under a lock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias, TypeVar

from pydantic import AwareDatetime, ValidationError

from common.configuration import Section
from common.errors import EnrolmentError, StateError
from common.files import locked, write_atomically
from common.identity import Identity

T = TypeVar("T")

Issue: TypeAlias = Callable[[str], tuple[int, bytes]]
"""Given a lab's name, returns the serial number of a new certificate and the certificate."""

FIRST_NODE = 2
"""Flower's own node is 1."""


class Invited(Section):
    """An invite that was written: of the token no more than its SHA-256 is kept."""

    id: str
    name: str
    token_sha256: str
    expires: AwareDatetime
    used: AwareDatetime | None = None
    revoked: AwareDatetime | None = None
    key_sha256: str | None = None
    """Of the key that it was used with: the same lab may ask again after a lost answer."""

    def is_open(self, now: datetime) -> bool:
        """Return whether it may still be used for the first time."""
        return not self.used and not self.revoked and self.expires > now


class EnrolledLab(Section):
    """A lab that has a certificate; a lab that comes back after a revoke keeps its node."""

    name: str
    node_id: int
    serial: str
    enrolled: AwareDatetime
    revoked: AwareDatetime | None = None
    certificate: str


class Contents(Section):
    """The file."""

    invites: tuple[Invited, ...] = ()
    labs: tuple[EnrolledLab, ...] = ()


class Register:
    """The register in a coordinator's state folder.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "register.json"
        self._read: tuple[tuple[int, int], Contents] | None = None

    def contents(self) -> Contents:
        """Return what stands in the register; the file is read again when it is another.

        Raises
        ------
        StateError
            If the file cannot be read.
        """
        try:
            # each change is a file of its own, renamed to this one
            found = self._path.stat()
            which = (found.st_ino, found.st_mtime_ns)
            if self._read is None or self._read[0] != which:
                content = self._path.read_bytes()
                self._read = which, Contents.model_validate_json(content, strict=False)
            return self._read[1]
        except FileNotFoundError:
            return Contents()
        except (OSError, ValidationError) as error:
            raise StateError(f"{self._path} cannot be read; restore it from a copy") from error

    def labs(self) -> tuple[EnrolledLab, ...]:
        """Return the labs that have been enrolled, revoked ones too, by name."""
        return tuple(sorted(self.contents().labs, key=lambda lab: lab.name))

    def open_invites(self, now: datetime | None = None) -> tuple[Invited, ...]:
        """Return the invites that are neither used, nor expired, nor revoked."""
        at = now or datetime.now(UTC)
        return tuple(invite for invite in self.contents().invites if invite.is_open(at))

    def lab_with(self, identity: Identity) -> EnrolledLab:
        """Return the lab that a certificate belongs to.

        Raises
        ------
        EnrolmentError
            If the lab is unknown or revoked, or the certificate is an earlier one.
        """
        for lab in self.contents().labs:
            if lab.name == identity.name and lab.serial == str(identity.serial):
                if lab.revoked is not None:
                    raise EnrolmentError(
                        f"{lab.name} was revoked on {lab.revoked:%Y-%m-%d %H:%M} UTC; "
                        "ask the coordinator for a new invite"
                    )
                return lab
        raise EnrolmentError(f"the certificate of {identity.name} is not one that is enrolled here")

    def add_invite(self, invite: Invited) -> None:
        """Note an invite.

        Raises
        ------
        EnrolmentError
            If the name is taken by a lab or an open invite.
        """

        def change(contents: Contents) -> tuple[Contents, None]:
            taken = {lab.name for lab in contents.labs if lab.revoked is None}
            taken |= {other.name for other in contents.invites if other.is_open(datetime.now(UTC))}
            if invite.name in taken:
                raise EnrolmentError(
                    f"{invite.name} has been invited or enrolled already; "
                    f"`crossply server revoke {invite.name}` first"
                )
            return contents.model_copy(update={"invites": (*contents.invites, invite)}), None

        self._change(change)

    def revoke(self, name: str) -> str:
        """Put out a lab, or take back its open invite; return which.

        Raises
        ------
        EnrolmentError
            If there is neither.
        """
        now = datetime.now(UTC)

        def change(contents: Contents) -> tuple[Contents, str]:
            labs = [lab.name == name and lab.revoked is None for lab in contents.labs]
            invites = [other.name == name and other.is_open(now) for other in contents.invites]
            if not any(labs + invites):
                before = {lab.name: lab.revoked for lab in contents.labs}.get(name)
                raise EnrolmentError(
                    f"{name} was revoked on {before:%Y-%m-%d %H:%M} UTC already"
                    if before
                    else f"{name} is neither enrolled nor invited"
                )
            changed = Contents(
                labs=tuple(
                    lab.model_copy(update={"revoked": now}) if out else lab
                    for lab, out in zip(contents.labs, labs, strict=True)
                ),
                invites=tuple(
                    other.model_copy(update={"revoked": now}) if out else other
                    for other, out in zip(contents.invites, invites, strict=True)
                ),
            )
            return changed, "lab" if any(labs) else "invite"

        return self._change(change)

    def enrol(self, invite_id: str, token: str, key_sha256: str, issue: Issue) -> EnrolledLab:
        """Use up an invite and enrol its lab, or return the lab that this key enrolled with it.

        Parameters
        ----------
        invite_id, token : str
        key_sha256 : str
            Of the lab's public key.
        issue : callable
            Returns serial number and certificate for a name.

        Raises
        ------
        EnrolmentError
            If the invite is unknown, altered, used, expired or revoked; says which.
        """
        now = datetime.now(UTC)

        def change(contents: Contents) -> tuple[Contents, EnrolledLab]:
            invite = _usable(contents, invite_id, token, key_sha256, now)
            known = {lab.name: lab for lab in contents.labs}
            if invite.used and known[invite.name].revoked:
                raise EnrolmentError(f"{invite.name} has been revoked; ask for a new invite")
            if invite.used:
                return contents, known[invite.name]
            serial, certificate = issue(invite.name)
            nodes = [lab.node_id for lab in contents.labs]
            before = known.get(invite.name)
            lab = EnrolledLab(
                name=invite.name,
                node_id=before.node_id if before else max([FIRST_NODE - 1, *nodes]) + 1,
                serial=str(serial),
                enrolled=now,
                certificate=certificate.decode(),
            )
            used = invite.model_copy(update={"used": now, "key_sha256": key_sha256})
            invites = tuple(used if i.id == used.id else i for i in contents.invites)
            labs = tuple((known | {invite.name: lab}).values())
            return Contents(invites=invites, labs=labs), lab

        return self._change(change)

    def _change(self, change: Callable[[Contents], tuple[Contents, T]]) -> T:
        """Write what a function makes of the contents; no other process writes meanwhile."""
        with locked(self._path.with_suffix(".lock"), wait=True):
            contents, result = change(self.contents())
            write_atomically(self._path, contents.model_dump_json(indent=2))
        return result


def _usable(
    contents: Contents, invite_id: str, token: str, key_sha256: str, now: datetime
) -> Invited:
    invite = next((invite for invite in contents.invites if invite.id == invite_id), None)
    digest = hashlib.sha256(token.encode()).hexdigest()
    if invite is None or invite.token_sha256 != digest:
        raise EnrolmentError("the invite is not one of this coordinator, or was altered")
    if invite.revoked:
        raise EnrolmentError(f"the invite of {invite.name} was revoked; ask for a new one")
    if invite.used and invite.key_sha256 != key_sha256:
        raise EnrolmentError(
            f"the invite of {invite.name} was used on {invite.used:%Y-%m-%d %H:%M} UTC; "
            "an invite is good once: ask for a new one"
        )
    if not invite.used and invite.expires < now:
        raise EnrolmentError(
            f"the invite of {invite.name} expired on {invite.expires:%Y-%m-%d %H:%M} UTC; "
            "ask for a new one"
        )
    return invite
