"""Instants on the wire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_SECOND = int((datetime(9999, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds())


def instant(message: Timestamp) -> datetime:
    """Return the time that a client sent, cut to 1970 to 9998: ``datetime`` cannot hold all that protobuf can."""
    seconds = max(0, min(_LAST_SECOND, message.seconds))
    return _EPOCH + timedelta(seconds=seconds, microseconds=message.nanos // 1000)


def stamp(time: datetime) -> Timestamp:
    """Return the wire form."""
    message = Timestamp()
    message.FromDatetime(time)
    return message
