"""Why a TLS connection to the coordinator fails, in words: gRPC's own texts do not say."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from common.address import split_address

EXPIRED = 10
OTHER_HOST = (62, 64)
"""OpenSSL's verify codes (x509_vfy.h); what is neither is an issuer that is not trusted."""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What is wrong with a connection.

    Attributes
    ----------
    sentence : str
        What was found and what to do.
    lasting : bool
        Whether waiting cannot mend it.
    """

    sentence: str
    lasting: bool


def diagnose(
    address: str, ca_path: Path, certificate_path: Path, key_path: Path, timeout: float = 5.0
) -> Diagnosis | None:
    """Connect as gRPC would, with the standard library, and say what fails.

    Parameters
    ----------
    address : str
        ``host:port``.
    ca_path, certificate_path, key_path : Path
        Whom the lab trusts, and what it shows.
    timeout : float
        Seconds for each step.

    Returns
    -------
    Diagnosis or None
        None if the connection works.
    """
    host, port = split_address(address)
    try:
        context = ssl.create_default_context(cafile=str(ca_path))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(certificate_path, key_path)
    except (OSError, ssl.SSLError) as error:
        return Diagnosis(
            sentence=f"the lab's certificate or key cannot be read ({error}); join again with a "
            "new invite",
            lasting=True,
        )
    try:
        with socket.create_connection((host, port), timeout=timeout) as plain:
            return _shake_hands(context, plain, host, address)
    except socket.gaierror:
        return Diagnosis(
            sentence=f"{host} is not known to this computer's name service; is the address right, "
            "and is this computer online?",
            lasting=False,
        )
    except ConnectionRefusedError:
        return Diagnosis(
            sentence=f"nobody listens at {address}; ask the coordinator to run "
            "`crossply server start`",
            lasting=False,
        )
    except OSError as error:
        return Diagnosis(
            sentence=f"{address} cannot be reached ({error.strerror or error}); does a firewall "
            "here or there keep this port closed?",
            lasting=False,
        )


def _shake_hands(
    context: ssl.SSLContext, plain: socket.socket, host: str, address: str
) -> Diagnosis | None:
    try:
        with context.wrap_socket(plain, server_hostname=host) as secured:
            # under TLS 1.3 a server refuses a client's certificate only after the handshake;
            # one that accepts it speaks first
            if not secured.recv(1):
                return _silent(address)
    except ssl.SSLCertVerificationError as error:
        return Diagnosis(sentence=_distrust(error, host, address), lasting=True)
    except ssl.SSLEOFError:
        return Diagnosis(
            sentence=f"{address} closes the connection before TLS is done; is it the "
            "coordinator's address, and is the coordinator not overrun? Try again",
            lasting=False,
        )
    except ssl.SSLError as error:
        if "ALERT" in (error.reason or ""):
            return Diagnosis(
                sentence=f"{address} refuses this lab's certificate "
                f"({(error.reason or '').lower().replace('_', ' ')}); ask the coordinator for a "
                "new invite",
                lasting=True,
            )
        return Diagnosis(
            sentence=f"{address} does not speak TLS 1.3 ({error.reason or error}); is it the "
            "coordinator's address?",
            lasting=False,
        )
    except TimeoutError:
        return _silent(address)
    except OSError as error:
        return Diagnosis(
            sentence=f"{address} breaks the connection ({error.strerror or error}); try again, or "
            "ask the coordinator whether it runs",
            lasting=False,
        )
    return None


def _silent(address: str) -> Diagnosis:
    return Diagnosis(
        sentence=f"{address} is open but does not answer as a coordinator does; is it the "
        "coordinator's address?",
        lasting=False,
    )


def _distrust(error: ssl.SSLCertVerificationError, host: str, address: str) -> str:
    if error.verify_code == EXPIRED:
        return (
            f"the certificate of the coordinator at {address} has expired; ask the coordinator to "
            "restart `crossply server start`, which renews it, and look at this computer's clock"
        )
    if error.verify_code in OTHER_HOST:
        return (
            f"the certificate of the coordinator at {address} is for another host name than "
            f"{host}; ask the coordinator which address the invite should name"
        )
    return (
        f"the coordinator at {address} is not the one that this lab joined: its certificate is "
        f"not of the authority in the invite ({error.verify_message}); do not go on, ask the "
        "coordinator"
    )
