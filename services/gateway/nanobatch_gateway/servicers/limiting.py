"""The turnstile behind the door: how often a caller who was let in may call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import grpc

from nanobatch_gateway.auth import caller_if_known
from nanobatch_gateway.limits import Limits, class_of
from nanobatch_gateway.servicers.interceptor import Handler
from nanobatch_runtime.errors import NanobatchError
from nanobatch_runtime.rpc.interceptors import refusing


class LimitInterceptor(grpc.aio.ServerInterceptor):
    """Counts calls by caller. It stands around :class:`AuthInterceptor`, which finds out who that is."""

    def __init__(self, limits: Limits) -> None:
        """``limits`` decides."""
        self._limits = limits

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the method's handler, or one that refuses. What anybody may call is not counted."""
        handler = await continuation(handler_call_details)
        caller = caller_if_known()
        if handler is None or caller is None:
            return handler
        try:
            await self._limits.admit(caller, class_of(str(handler_call_details.method)))
        except NanobatchError as error:
            return refusing(error)
        return handler
