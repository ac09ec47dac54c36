"""A lab's state folder: which federation it belongs to, as whom, with which key."""

from __future__ import annotations

import stat
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from common.address import split_address
from common.bundle import FOLDER_NAME as MODEL_FOLDER
from common.configuration import Section
from common.errors import ConfigurationError, StateError
from common.federation import FILE_NAME, Federation, load_federation
from common.files import held_alone, require_owner
from common.sealed import SUMS

if TYPE_CHECKING:
    import grpc


class Settings(Section):
    """What stands in ``membership.json``."""

    lab: str
    address: str
    fingerprint: str
    data: str


@dataclass(frozen=True, kw_only=True)
class Membership:
    """What a lab's state folder says.

    Attributes
    ----------
    folder : Path
    lab : str
        The name under which it is enrolled.
    address : str
        ``host:port`` of the coordinator.
    fingerprint : str
        Of the agreement that the lab's operator accepted.
    data : Path
        The lab's own folder, which holds ``lab.toml``.
    """

    folder: Path
    lab: str
    address: str
    fingerprint: str
    data: Path

    @property
    def federation_path(self) -> Path:
        """The agreement."""
        return self.folder / FILE_NAME

    @property
    def ca_path(self) -> Path:
        """The certificate of the coordinator's authority."""
        return self.folder / "ca.crt"

    @property
    def certificate_path(self) -> Path:
        """The lab's own certificate."""
        return self.folder / "lab.crt"

    @property
    def key_path(self) -> Path:
        """The lab's own key, which never leaves it."""
        return self.folder / "lab.key"

    @property
    def policy_path(self) -> Path:
        """What the lab lets leave."""
        return self.folder / "policy.toml"

    @property
    def log_path(self) -> Path:
        """What has left."""
        return self.folder / "sent.jsonl"

    @property
    def model_path(self) -> Path:
        """The folder that the model of the run is kept in."""
        return self.folder / MODEL_FOLDER

    @property
    def has_model(self) -> bool:
        """Whether the model of the run has come, with all that belongs to it."""
        return (self.model_path / SUMS).exists()

    def federation(self) -> Federation:
        """Read the agreement.

        Raises
        ------
        StateError
            If it is not the one that the lab's operator accepted.
        """
        federation = load_federation(self.federation_path)
        if federation.fingerprint() != self.fingerprint:
            raise StateError(
                f"{self.federation_path} has been edited: its fingerprint is "
                f"{federation.fingerprint()[:12]} and you accepted {self.fingerprint[:12]}; "
                "restore it, or join again with a new invite"
            )
        return federation

    def locked(self) -> AbstractContextManager[None]:
        """Keep every other process from taking part out of this folder: two would write one log.

        Raises
        ------
        StateError
            When entered, if one does so already.
        """
        otherwise = f"another process takes part out of {self.folder}; keep one of them"
        return held_alone(self.folder / "lock", otherwise)

    def credentials(self) -> grpc.ChannelCredentials:
        """Return what the lab shows, and whom it trusts.

        Raises
        ------
        StateError
            If key or certificates cannot be read.
        """
        import grpc

        try:
            return grpc.ssl_channel_credentials(
                self.ca_path.read_bytes(),
                self.key_path.read_bytes(),
                self.certificate_path.read_bytes(),
            )
        except OSError as error:
            raise StateError(
                f"{error.filename} cannot be read: {error.strerror}; give this user its rights, "
                "or join again with a new invite"
            ) from error


def open_membership(folder: Path) -> Membership:
    """Read a lab's state folder.

    Raises
    ------
    StateError
        If it is missing or is none, or if others than its owner may read the lab's key.
    """
    path = folder / "membership.json"
    try:
        settings = Settings.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise StateError(
            f"{folder} is no state folder of a lab; make one with "
            "`crossply lab join NAME.invite --data DIR`, or name it with --state"
        ) from error
    except (OSError, ValidationError) as error:
        raise StateError(f"{path} cannot be read; join again with a new invite") from error
    require_owner(folder)
    try:
        split_address(settings.address)
    except ConfigurationError as error:
        raise StateError(f"{path} was altered: {error}; join again with a new invite") from error
    membership = Membership(
        folder=folder,
        lab=settings.lab,
        address=settings.address,
        fingerprint=settings.fingerprint,
        data=Path(settings.data),
    )
    _check_key(membership.key_path)
    return membership


def _check_key(path: Path) -> None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}; join again with a new invite") from error
    if mode & 0o077:
        raise StateError(f"{path} may be read by others (mode {mode:o}); run: chmod 600 {path}")
