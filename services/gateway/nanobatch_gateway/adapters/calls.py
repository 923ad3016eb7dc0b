"""How this service calls others: what they answer passes on, that they cannot be reached is said plainly."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar

import grpc
import structlog

from nanobatch_gateway.domain import StorageUnavailableError
from nanobatch_runtime.errors import Kind, RemoteError
from nanobatch_runtime.rpc import channel
from nanobatch_runtime.rpc.channel import limit
from nanobatch_runtime.rpc.service_token import ServiceTokenError

_log = structlog.get_logger("nanobatch.gateway")

T = TypeVar("T")

STREAM_LIMIT = timedelta(hours=24)
"""A stream that follows something may last; a day is longer than any execution should be watched in one piece."""

_TROUBLE = frozenset(
    {
        Kind.UNAVAILABLE,
        Kind.DEADLINE_EXCEEDED,
        Kind.CANCELLED,
        Kind.UNKNOWN,
        Kind.INTERNAL,
        Kind.UNIMPLEMENTED,
        Kind.RESOURCE_EXHAUSTED,
        Kind.DATA_LOSS,
    }
)


def is_transport_trouble(error: RemoteError) -> bool:
    """Say whether an error was made on the way, and not by the service: it has no details of ours, or we were not let in."""
    if error.reason == ServiceTokenError.reason:
        _log.error("service_token.refused", message=error.message)
        return True
    return error.kind in _TROUBLE and error.reason == error.kind.value and not error.metadata


async def ask_storage(pending: Awaitable[T]) -> T:
    """Await an answer of storage; its own errors pass on unchanged. Raises StorageUnavailableError where none came."""
    try:
        return await channel.call(pending)
    except RemoteError as error:
        raise _plain(error) from None


@asynccontextmanager
async def storage_stream(call: grpc.aio.UnaryStreamCall[Any, T]) -> AsyncIterator[AsyncIterator[T]]:
    """Open a stream of storage's; leaving the context ends the call. Errors as in :func:`ask_storage`."""
    try:
        yield channel.stream(aiter(call))
    except RemoteError as error:
        raise _plain(error) from None
    finally:
        call.cancel()


def _plain(error: RemoteError) -> RemoteError | StorageUnavailableError:
    if not is_transport_trouble(error):
        return error
    # The original text names internal addresses.
    return StorageUnavailableError(
        "Storage cannot be reached at the moment; try again.", retry_after=timedelta(seconds=1)
    )


__all__ = ["STREAM_LIMIT", "ask_storage", "is_transport_trouble", "limit", "storage_stream"]
