"""The names under which browsers reach one of our ports: what ``Host`` and ``Origin`` may say there."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class OwnNames:
    """Values of ``Host`` in lower case, and origins. Browsers leave out the port that goes with the scheme."""

    hosts: frozenset[str]
    origins: frozenset[str]

    @classmethod
    def of(cls, address: str, public_url: str) -> OwnNames:
        """Return the names of ``host:port`` (the real port) and of the address that browsers are told, if any."""
        host, _, port = address.rpartition(":")
        bases = [f"http://{name}:{port}" for name in (*_LOOPBACK_NAMES, host)]
        hosts: set[str] = set()
        origins: set[str] = set()
        for base in [*bases, *([public_url] if public_url else [])]:
            parts = urlsplit(base.lower())
            default = _DEFAULT_PORTS[parts.scheme]
            bare = parts.netloc.removesuffix(f":{parts.port}")
            number = parts.port or default
            spellings = {f"{bare}:{number}"} | ({bare} if number == default else set())
            hosts |= spellings
            origins |= {f"{parts.scheme}://{spelling}" for spelling in spellings}
        return cls(frozenset(hosts), frozenset(origins))
