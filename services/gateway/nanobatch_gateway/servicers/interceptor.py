"""The door: every call is let in, or not, before its handler is reached."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeAlias

import grpc

from nanobatch_gateway.auth import RULES, Authenticator, Rule, set_caller
from nanobatch_runtime.errors import NanobatchError, PermissionDeniedError

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Finds the rule of the called method and the caller, and notes the caller for the handler."""

    def __init__(self, authenticator: Authenticator, require_ready: Callable[[], None]) -> None:
        """``require_ready`` raises while the gateway cannot serve users yet."""
        self._authenticator = authenticator
        self._require_ready = require_ready

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the method's handler, or one that refuses; an unknown method is left to gRPC (UNIMPLEMENTED)."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        try:
            await self._let_in(handler_call_details)
        except NanobatchError as error:
            return _refusal(error)
        return handler

    async def _let_in(self, details: grpc.HandlerCallDetails) -> None:
        rule = RULES.get(str(details.method))
        if rule is None:
            raise PermissionDeniedError("Nobody may call this method.")
        if rule is Rule.OPEN:
            return
        metadata = {str(key): str(value) for key, value in details.invocation_metadata or ()}
        set_caller(await self._authenticator.authenticate(metadata))
        self._require_ready()


def _refusal(error: NanobatchError) -> Handler:
    # A unary handler refuses calls of all four kinds: the error is raised inside, where it becomes a status.
    async def refuse(_request: Any, _context: Any) -> NoReturn:
        raise error

    return grpc.unary_unary_rpc_method_handler(refuse)
