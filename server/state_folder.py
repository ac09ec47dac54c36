"""The coordinator's state folder: the agreement, keys, the register, and the run."""

from __future__ import annotations

import secrets
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from common.address import split_address
from common.configuration import Section
from common.errors import StateError
from common.federation import FILE_NAME, Federation, load_federation
from common.files import held_alone, is_held, require_owner, write_atomically
from common.identity import Identity
from server.authority import CA_LIFETIME, Authority, new_serial, write_key

SETTINGS = "server.json"

LOCK_PATIENCE_S = 1.0
"""For who only looks whether a coordinator runs, for a moment at a time."""


class _Settings(Section):
    address: str
    fingerprint: str
    run_id: int


@dataclass(frozen=True, kw_only=True)
class Coordination:
    """What a coordinator's state folder says.

    Attributes
    ----------
    folder : Path
    address : str
        ``host:port``, as labs reach it.
    fingerprint : str
        Of the agreement when the folder was made.
    run_id : int
    """

    folder: Path
    address: str
    fingerprint: str
    run_id: int

    @property
    def federation_path(self) -> Path:
        """The agreement."""
        return self.folder / FILE_NAME

    @property
    def run_folder(self) -> Path:
        """Checkpoints and the result."""
        return self.folder / "run"

    @property
    def status_path(self) -> Path:
        """Written by a running coordinator."""
        return self.folder / "status.json"

    @property
    def host(self) -> str:
        """The host of the address."""
        return split_address(self.address)[0]

    def federation(self) -> Federation:
        """Read the agreement.

        Raises
        ------
        StateError
            If it has been edited since the folder was made.
        """
        federation = load_federation(self.federation_path)
        if federation.fingerprint() != self.fingerprint:
            raise StateError(
                f"{self.federation_path} has been edited: its fingerprint is "
                f"{federation.fingerprint()[:12]} and the labs agreed to {self.fingerprint[:12]}; "
                "restore it, or make a new state folder and new invites"
            )
        return federation

    def locked(self) -> AbstractContextManager[None]:
        """Keep every other coordinator out of the folder; the lock ends with the process.

        Raises
        ------
        StateError
            When entered, if another process holds it.
        """
        otherwise = (
            f"another coordinator runs on {self.folder}; stop it first, or use another state folder"
        )
        return held_alone(self._lock_path, otherwise, patience=LOCK_PATIENCE_S)

    def is_locked(self) -> bool:
        """Return whether a coordinator runs on the folder; looking keeps none out."""
        return is_held(self._lock_path)

    @property
    def _lock_path(self) -> Path:
        return self.folder / "lock"


def create_coordination(federation_path: Path, address: str, folder: Path) -> Coordination:
    """Make a coordinator's state folder, readable by its owner alone.

    Raises
    ------
    StateError
        If the folder exists and is not empty; tells one that was cut off from a whole one.
    ConfigurationError
        If the federation file or the address is wrong.
    """
    federation = load_federation(federation_path)
    host, _ = split_address(address)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StateError(_occupied(folder))
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    write_atomically(folder / FILE_NAME, federation_path.read_bytes())
    authority = Authority.create(folder, federation.name)
    authority.renew_server_certificate(host)
    key = ec.generate_private_key(ec.SECP256R1())
    operator = Identity(role="operator", name="operator", serial=new_serial())
    write_key(folder / "operator.key", key)
    write_atomically(
        folder / "operator.crt", authority.issue(operator, key.public_key(), CA_LIFETIME)
    )
    # last: a folder with it is complete
    settings = _Settings(
        address=address, fingerprint=federation.fingerprint(), run_id=secrets.randbits(62) + 1
    )
    write_atomically(folder / SETTINGS, settings.model_dump_json(indent=2))
    return open_coordination(folder)


def _occupied(folder: Path) -> str:
    """Say why no state folder is made there, and how to go on: `SETTINGS` is written last."""
    if (folder / SETTINGS).exists():
        return f"{folder} exists already; go on with it, or name another with --state DIR"
    if not folder.is_dir():
        return f"{folder} is no folder; name another with --state DIR"
    return (
        f"{folder} is not empty and has no {SETTINGS}: if `crossply server init` was cut off "
        f"there, remove it and run this again; if {SETTINGS} was lost, restore it from a copy; "
        "or name another with --state DIR"
    )


def open_coordination(folder: Path) -> Coordination:
    """Read a coordinator's state folder.

    Raises
    ------
    StateError
        If it is missing or is none.
    """
    path = folder / SETTINGS
    try:
        settings = _Settings.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise StateError(
            f"{folder} is no state folder of a coordinator; make one with "
            "`crossply server init federation.toml --address HOST:PORT`, or name it with --state"
        ) from error
    except (OSError, ValidationError) as error:
        raise StateError(f"{path} cannot be read; restore it from a copy") from error
    require_owner(folder)
    return Coordination(
        folder=folder,
        address=settings.address,
        fingerprint=settings.fingerprint,
        run_id=settings.run_id,
    )
