"""How a coordinator is reached: ``host:port``."""

from __future__ import annotations

import ipaddress
import re

from common.errors import ConfigurationError

LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
HOST_NAME = re.compile(rf"(?=.{{1,253}}$){LABEL}(\.{LABEL})*", re.IGNORECASE)
"""A name as in RFC 1123."""


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port``; the host is a name or an IP address.

    Raises
    ------
    ConfigurationError
        If it is none.

    Examples
    --------
    >>> split_address("fed.example.org:9443"), split_address("[::1]:9443")
    (('fed.example.org', 9443), ('::1', 9443))
    >>> split_address("https://fed.example.org:9443")
    Traceback (most recent call last):
    ...
    common.errors.ConfigurationError: 'https://fed.example.org:9443' is no address; write \
HOST:PORT, as in fed.example.org:9443
    """
    host, colon, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    is_number = port.isascii() and port.isdecimal()
    is_port = is_number and len(port) <= 5 and 0 < int(port) < 65536
    if not colon or not is_port or not _is_host(bare):
        limits = "; a port is a number from 1 to 65535" if is_number and not is_port else ""
        raise ConfigurationError(
            f"{address[:100]!r} is no address; write HOST:PORT, as in fed.example.org:9443{limits}"
        )
    return bare, int(port)


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return HOST_NAME.fullmatch(host) is not None
    return True
