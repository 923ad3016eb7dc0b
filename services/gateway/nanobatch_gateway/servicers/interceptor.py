"""The door: every call is let in, or not, before its handler is reached."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeAlias

import grpc

from nanobatch_gateway.auth import RULES, Authenticator, Metadata, Rule, set_caller
from nanobatch_gateway.domain import AdminOnlyError, Caller
from nanobatch_gateway.recheck import RECHECK
from nanobatch_gateway.servicers.guard import guarded
from nanobatch_runtime.errors import NanobatchError, PermissionDeniedError
from nanobatch_runtime.rpc.interceptors import refusing

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Finds the rule of the called method and the caller, and notes the caller for the handler."""

    def __init__(
        self, authenticator: Authenticator, require_ready: Callable[[], None], *, recheck: timedelta = RECHECK
    ) -> None:
        """``require_ready`` raises while the gateway cannot serve users yet; streams look again every ``recheck``."""
        self._authenticator = authenticator
        self._require_ready = require_ready
        self._recheck = recheck

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the method's handler, or one that refuses; an unknown method is left to gRPC (UNIMPLEMENTED)."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        metadata = tuple(handler_call_details.invocation_metadata or ())
        try:
            rule = _rule(str(handler_call_details.method))
            if rule is Rule.OPEN:
                return handler
            caller = await self._let_in(rule, metadata)
        except NanobatchError as error:
            return refusing(error)
        set_caller(caller)
        if self._authenticator.lasting:
            return handler

        async def still_welcome() -> None:
            if await self._let_in(rule, metadata) != caller:
                raise PermissionDeniedError("Your role was changed meanwhile; call again.")

        return guarded(handler, still_welcome, self._recheck)

    async def _let_in(self, rule: Rule, metadata: Metadata) -> Caller:
        if rule is not Rule.CATALOGUE:
            self._require_ready()
        caller = await self._authenticator.authenticate(metadata)
        if rule is Rule.ADMIN and not caller.admin:
            raise AdminOnlyError("Only an admin may do this.")
        return caller


def _rule(method: str) -> Rule:
    rule = RULES.get(method)
    if rule is None:
        raise PermissionDeniedError("Nobody may call this method.")
    return rule
