"""Keepalive, limits and ages, for both ends in one place: a ping rate that only one end knows ends in GOAWAY."""

from __future__ import annotations

from datetime import timedelta

from nanobatch_runtime.rpc.repeats import service_config

CHUNK_BYTES = 256 * 1024
"""Size of a piece of a picture on a stream (256 KiB is the quickest size with grpc.aio: docs/performance.md)."""

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""gRPC's own default limit, kept on purpose: every foreign client has it."""

CONNECTION_AGE = timedelta(seconds=30)
"""How long an internal server keeps a connection open for new calls (gRPC spreads it by a tenth).

gRPC looks up a name again only when a connection ends. This is therefore how soon a new replica gets its share.
"""

PUBLIC_CONNECTION_AGE = timedelta(minutes=5)
"""The same for clients from outside, whose names may lead through balancers that do this work."""

LONGEST_STREAM = timedelta(minutes=5)
"""How long an internal stream may last. Its server ends it resumably before that: see :func:`server`."""

_STREAM_MARGIN = timedelta(seconds=30)
_RESOLVE_AT_MOST_EVERY = timedelta(seconds=5)

PING_EVERY = timedelta(seconds=30)
PING_TIMEOUT = timedelta(seconds=10)


CONNECT_TIMEOUT = timedelta(seconds=5)
"""How long one try to connect may take, handshakes included.

gRPC calls it ``min_reconnect_backoff`` (MIN_CONNECT_TIMEOUT in its connection-backoff.md); its own 20 seconds are long
where an address is gone and another one could be asked for.
"""


def _ms(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)


_COMMON: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", _ms(PING_EVERY)),
    ("grpc.keepalive_timeout_ms", _ms(PING_TIMEOUT)),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)

_SERVER: tuple[tuple[str, int], ...] = (
    *_COMMON,
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", _ms(PING_EVERY) // 3),
    ("grpc.http2.max_ping_strikes", 4),
)

_CHANNEL: tuple[tuple[str, int], ...] = (
    *_COMMON,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", _ms(CONNECT_TIMEOUT)),
    ("grpc.max_reconnect_backoff_ms", 2000),
)

Options = tuple[tuple[str, int | str], ...]


def server(address: str, *, connection_age: timedelta, longest_stream: timedelta) -> Options:
    """Return a server's options. Connections end for new calls after ``connection_age``, so that clients look around.

    What runs on such a connection may go on for ``longest_stream`` and a margin. Then it would be cut without a word, so
    every stream has to end itself before that. On a unix socket there is nothing to look around for.
    """
    if address.startswith("unix:"):
        return _SERVER
    return (
        *_SERVER,
        ("grpc.max_connection_age_ms", _ms(connection_age)),
        ("grpc.max_connection_age_grace_ms", _ms(longest_stream + _STREAM_MARGIN)),
    )


def channel(target: str) -> Options:
    """Return a channel's options: calls go round all addresses of the target's name, and safe ones are repeated."""
    if target.startswith("unix:"):
        return _CHANNEL
    return (
        *_CHANNEL,
        ("grpc.dns_min_time_between_resolutions_ms", _ms(_RESOLVE_AT_MOST_EVERY)),
        ("grpc.service_config", service_config()),
    )
