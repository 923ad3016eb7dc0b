"""A watch that resumes by itself: state replication by revision, so no final state is missed and none comes twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import grpc

from nanobatch.gateway.v1 import execution_service_pb2 as pb
from nanobatch_client import _translate
from nanobatch_client._transport import Transport, backoff, has_details
from nanobatch_client.errors import NanobatchError, UnavailableError
from nanobatch_client.models import Update

if TYPE_CHECKING:  # this name stands in the stubs' types only
    from nanobatch.gateway.v1.execution_service_pb2_grpc import ExecutionServiceAsyncStub

# What a reset connection or a proxy looks like. They count only where no nanobatch server put its own details in: an
# INTERNAL with an incident id will not get better by asking again.
_TRANSPORT_CODES = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED})

# A gateway that reaches nothing ends a watch after 30 s. One that was open for longer was a good one, though nothing
# happened on it: a paused run is quiet for hours, and its watch is renewed now and then.
_QUIET_SECONDS = 60.0


async def watch(
    transport: Transport, stub: ExecutionServiceAsyncStub, execution_id: str, after_revision: int
) -> AsyncGenerator[Update, None]:
    """Yield updates until the run has ended, over any number of connections.

    Raises:
        NanobatchError: an end that another connection would not mend (deleted, unknown revision, token refused), or
            no message for longer than ``transport.patience.watch``.
    """
    last = after_revision
    failures = 0
    broken = time.monotonic()  # since when nothing could be heard
    while True:
        opened = time.monotonic()
        heard = False
        request = pb.WatchExecutionRequest(execution_id=execution_id, after_revision=last)
        call = stub.WatchExecution(request, metadata=transport.metadata)
        try:
            async for message in call:
                failures, heard = 0, True
                transport.answered = True
                # A repeat can only come from a server that replays more than it was asked for: dropped all the same.
                if message.revision and message.revision <= last:
                    continue
                last = max(last, message.revision)
                update = _translate.update(message)
                if update is not None:
                    yield update
        except grpc.aio.AioRpcError as raw:
            error = transport.error(raw)
            if not _resumable(raw, error):
                raise error from None
        else:
            return
        finally:
            call.cancel()
        now = time.monotonic()
        if heard or now - opened > _QUIET_SECONDS:
            failures, broken = 0, now
        failures += 1
        wait = backoff(failures, error)
        if now - broken + wait > transport.limit(transport.patience.watch):
            raise error
        await asyncio.sleep(wait)


def _resumable(raw: grpc.aio.AioRpcError, error: NanobatchError) -> bool:
    if isinstance(error, UnavailableError) or error.reason == "WATCHER_TOO_SLOW":
        return True
    return raw.code() in _TRANSPORT_CODES and not has_details(raw)
