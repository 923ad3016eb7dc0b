"""How a gateway is named: gRPC's own forms of a target, and ``https://name[:port]``."""

from __future__ import annotations

import grpc


def under_tls(
    target: str, credentials: grpc.ChannelCredentials | None = None
) -> tuple[str, grpc.ChannelCredentials | None]:
    """Return gRPC's own form of ``https://name[:port]``, and by default the certificates that gRPC trusts.

    Another target comes back as it is; ``credentials`` are None where its channel is plain.
    """
    if not target.startswith("https://"):
        return target, credentials
    place = target.removeprefix("https://").partition("/")[0]
    _, colon, _ = place.rpartition("]")[2].partition(":")  # an IPv6 address stands in brackets
    return place if colon else f"{place}:443", credentials or grpc.ssl_channel_credentials()
