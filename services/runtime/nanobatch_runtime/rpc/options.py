"""Keepalive and message limits, for both ends in one place: a ping rate that only one end knows ends in GOAWAY."""

from __future__ import annotations

from datetime import timedelta

CHUNK_BYTES = 256 * 1024
"""Size of a piece of a picture on a stream (256 KiB is the quickest size with grpc.aio: docs/performance.md)."""

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""gRPC's own default limit, kept on purpose: every foreign client has it."""

PING_EVERY = timedelta(seconds=30)
PING_TIMEOUT = timedelta(seconds=10)


def _ms(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)


COMMON: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", _ms(PING_EVERY)),
    ("grpc.keepalive_timeout_ms", _ms(PING_TIMEOUT)),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)

SERVER: tuple[tuple[str, int], ...] = (
    *COMMON,
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", _ms(PING_EVERY) // 3),
    ("grpc.http2.max_ping_strikes", 4),
)

CHANNEL: tuple[tuple[str, int], ...] = (
    *COMMON,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
)
