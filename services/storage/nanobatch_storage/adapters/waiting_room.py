"""What answers on storage's port while storage itself waits for its database."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeAlias

import grpc

from nanobatch_runtime.errors import UnavailableError
from nanobatch_runtime.rpc.interceptors import refusing
from nanobatch_runtime.rpc.server import RpcServer

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

_GRACE = timedelta(seconds=0.5)
"""All is answered at once here, but for those who watch our health: who is just asking is not cut, and they hold nobody up."""


class StorageStartingError(UnavailableError):
    """Storage has not met its database yet."""

    reason = "STARTING"


class _NotYet(grpc.aio.ServerInterceptor):
    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Refuse all but the questions after our health."""
        if str(handler_call_details.method).startswith("/grpc.health."):
            return await continuation(handler_call_details)
        message = "Storage is waiting for its database; try again in a moment."
        return refusing(StorageStartingError(message, retry_after=timedelta(seconds=1)))


@asynccontextmanager
async def waiting_room(address: str, service_names: Sequence[str]) -> AsyncGenerator[None]:
    """Answer NOT_SERVING to probes and UNAVAILABLE to everybody else while the context is open.

    Raises UnavailableError (ADDRESS_IN_USE).
    """
    server = RpcServer(address, service_names, interceptors=[_NotYet()])
    await server.start(serving=False)
    try:
        yield
    finally:
        await server.stop(_GRACE)
