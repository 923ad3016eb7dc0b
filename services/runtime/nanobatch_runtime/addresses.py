"""Addresses: what one may listen on and who can reach that, and what browsers are told."""

from __future__ import annotations

import ipaddress
import re

_HOST_AND_PORT = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^:\[\]/\s]+):(?P<port>\d{1,5})")
_MAX_PORT = 65_535
WEB_AUTHORITY = r"(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?"
"""What stands behind the scheme of an origin, as a regular expression."""
_WEB_ADDRESS = re.compile(rf"https?://{WEB_AUTHORITY}(?:/[A-Za-z0-9._~/-]*)?")
_OWN = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "[::0]": "[::1]"}  # noqa: S104  # to recognise them


def check_address(value: str) -> str:
    """Return a listen address as it is. Raises ValueError, with a sentence, for what is none."""
    if value.startswith("unix:"):
        return value
    match = _HOST_AND_PORT.fullmatch(value)
    if match is None or int(match["port"]) > _MAX_PORT:
        message = "this is no address; write host:port, like 127.0.0.1:50051, or unix:/path."
        raise ValueError(message)
    return value


def check_web_address(value: str) -> str:
    """Return the address that browsers are told, without a slash at its end; an empty one stays. Raises ValueError."""
    value = value.strip().rstrip("/")
    if value and not _WEB_ADDRESS.fullmatch(value):
        message = "this is no web address; write it like https://pictures.example."
        raise ValueError(message)
    return value


def reached_from_here(listen: str) -> str:
    """Return where a program on this machine reaches what listens at an address: also at every address of it."""
    host, colon, port = listen.rpartition(":")
    return f"{_OWN.get(host, host)}{colon}{port}"


def is_loopback(address: str) -> bool:
    """Say whether only programs on this machine can reach a listen address.

    Names other than ``localhost`` count as foreign: nobody knows what they resolve to tomorrow.
    """
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host.lower() == "localhost":
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped  # Python 3.11 calls ::ffff:127.0.0.1 no loopback, 3.13 does
    return found.is_loopback
