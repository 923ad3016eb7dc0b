"""What storage's statuses mean to a generator; one table for all adapters."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from contextlib import contextmanager
from typing import TypeVar

import grpc

from nanobatch_generator.domain import LeaseLostError, StorageDownError
from nanobatch_runtime.errors import Kind, NanobatchError
from nanobatch_runtime.rpc.service_token import ServiceTokenError
from nanobatch_runtime.rpc.status import from_rpc_error

T = TypeVar("T")

# CANCELLED and UNKNOWN are what a dying server or a cut connection look like to grpc.
_DOWN = {Kind.UNAVAILABLE, Kind.DEADLINE_EXCEEDED, Kind.CANCELLED, Kind.UNKNOWN}
# Mended by an operator, by a restart with the right token or by room on a disk: a paid picture waits for that.
_MENDED = {ServiceTokenError.reason, "DISK_FULL"}


def from_status(error: grpc.RpcError) -> NanobatchError:
    """Return LeaseLostError, StorageDownError, or the RemoteError as it came."""
    remote = from_rpc_error(error)
    if remote.reason == LeaseLostError.reason:
        return LeaseLostError(remote.message, metadata=remote.metadata)
    if remote.reason in _MENDED:
        return StorageDownError(
            remote.message, reason=remote.reason, metadata=remote.metadata, retry_after=remote.retry_after
        )
    if remote.kind in _DOWN:
        return StorageDownError(remote.message, metadata=remote.metadata, retry_after=remote.retry_after)
    return remote


@contextmanager
def translated() -> Generator[None]:
    """Turn grpc's errors into ours; a cancellation of our own task stays one."""
    try:
        yield
    except asyncio.CancelledError:
        # grpc.aio raises it also where nobody cancelled us: a closed channel, a request iterator that failed.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise StorageDownError("The call to storage was cut.") from None
    except grpc.RpcError as error:
        raise from_status(error) from None


async def answer(pending: Awaitable[T]) -> T:
    """Await a call, with its errors turned into ours."""
    with translated():
        return await pending
