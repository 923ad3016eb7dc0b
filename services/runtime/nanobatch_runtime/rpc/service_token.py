"""What services show each other: one token on every call of an internal port, both sides in one place.

The token says "I am one of us" and nothing about a user; on whose behalf a call is made stands in its request, which
only the gateway fills in.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

import grpc
from pydantic import SecretStr

from nanobatch_runtime.addresses import is_loopback
from nanobatch_runtime.errors import UnauthenticatedError
from nanobatch_runtime.rpc.interceptors import refusing
from nanobatch_runtime.rpc.showing import showing

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
C = TypeVar("C")

NO_TOKEN = SecretStr("")
"""Nothing is shown or asked for: on loopback and unix sockets."""

_HEADER = "authorization"
_OPEN = "/grpc.health.v1.Health/"


class ServiceTokenError(UnauthenticatedError):
    """A call to an internal port came without its token."""

    reason = "SERVICE_TOKEN_REFUSED"

    def __init__(self) -> None:
        """Say what to do."""
        super().__init__("This port is for nanobatch's own services: NANOBATCH_SERVICE_TOKEN must be the same on all.")


class ServiceTokenInterceptor(grpc.aio.ServerInterceptor):
    """Refuses every call without the token, of whatever kind and whether its method exists; health stays open."""

    def __init__(self, token: str) -> None:
        """``token`` is what callers must show."""
        self._wanted = _bearer(token).encode()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the method's handler, or one that refuses."""
        shown = [value for key, value in handler_call_details.invocation_metadata or () if key == _HEADER]
        if not str(handler_call_details.method).startswith(_OPEN) and not self._is_ours(shown):
            return refusing(ServiceTokenError())
        return await continuation(handler_call_details)

    def _is_ours(self, shown: list[str | bytes]) -> bool:
        if len(shown) != 1:
            return False
        value = shown[0].encode() if isinstance(shown[0], str) else shown[0]
        return hmac.compare_digest(value, self._wanted)


def internal_door(token: SecretStr) -> list[grpc.aio.ServerInterceptor]:
    """Return the interceptors of an internal port: none where no token is set."""
    secret = token.get_secret_value()
    return [ServiceTokenInterceptor(secret)] if secret else []


def require_closed_door(variable: str, listen: str, token: SecretStr) -> None:
    """Raise ValueError where an internal port could be reached from other machines and asks for no token.

    ``variable`` names the listen address.
    """
    if not token.get_secret_value() and not is_loopback(listen):
        message = (
            f"{variable}: {listen} can be reached by others, and this port gives away everything: set "
            "NANOBATCH_SERVICE_TOKEN, the same for all services, or listen on 127.0.0.1."
        )
        raise ValueError(message)


def with_service_token(channel: C, token: SecretStr) -> C:
    """Return the channel, asyncio's or not, such that every call of its stubs shows the token; itself without one."""
    secret = token.get_secret_value()
    if not secret:
        return channel
    metadata = ((_HEADER, _bearer(secret)),)
    return showing(channel, lambda: metadata)


def _bearer(token: str) -> str:
    return f"Bearer {token}"
