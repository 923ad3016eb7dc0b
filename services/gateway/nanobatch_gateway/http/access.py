"""Who may call which route. A route that is not in the table is called by nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from functools import partial
from typing import NoReturn

from fastapi import Request
from fastapi.routing import APIRoute

from nanobatch_gateway.auth import Authenticator
from nanobatch_gateway.domain import Caller
from nanobatch_gateway.limits import CallClass, Limits
from nanobatch_gateway.recheck import RECHECK, until_refused
from nanobatch_runtime.errors import PermissionDeniedError, UnauthenticatedError


class Access(Enum):
    """What a route asks of its caller."""

    OPEN = "anybody may call it, and it needs no storage"
    LINK = "whoever has the signed address"
    USER = "any user may call it"


@dataclass(frozen=True, slots=True)
class RouteRule:
    """Who may call a route, and which of a user's allowances it is counted against."""

    access: Access
    counted: CallClass | None = None


ROUTES: Mapping[str, RouteRule] = {
    "POST /api/nano-banana/execute": RouteRule(Access.USER, CallClass.SPEND),
    "POST /api/generate-image": RouteRule(Access.USER, CallClass.SPEND),
    "POST /api/check-generation-status": RouteRule(Access.USER, CallClass.READ),
    "GET /api/executions/{execution_id}": RouteRule(Access.USER, CallClass.READ),
    "GET /api/executions/{execution_id}/results": RouteRule(Access.USER, CallClass.READ),
    "GET /api/executions/{execution_id}/archive.zip": RouteRule(Access.USER, CallClass.READ),
    "GET /api/executions/{execution_id}/events": RouteRule(Access.USER, CallClass.WATCH),
    "GET /images/{image_id}": RouteRule(Access.LINK),
    "HEAD /images/{image_id}": RouteRule(Access.LINK),
    "GET /openapi.json": RouteRule(Access.OPEN),
    "GET /docs": RouteRule(Access.OPEN),
}
"""By method and path. Denied by default: a new route is dead until somebody decides here."""


class Gate:
    """Lets a request in, or not, before its handler is reached."""

    def __init__(
        self,
        authenticator: Authenticator,
        limits: Limits,
        require_ready: Callable[[], None],
        *,
        recheck: timedelta = RECHECK,
    ) -> None:
        """``require_ready`` raises while the gateway cannot serve users yet; streams look again every ``recheck``."""
        self._authenticator = authenticator
        self._limits = limits
        self._require_ready = require_ready
        self._recheck = recheck

    async def __call__(self, request: Request) -> None:
        """Note the caller for :func:`caller_of`. Raises what refuses it: starting, login, role, limits."""
        rule = ROUTES.get(f"{request.method} {route_of(request)}") or _nobody()
        if rule.access is Access.OPEN:
            return
        self._require_ready()
        if rule.access is Access.LINK:
            return
        metadata = request.headers.items()  # a header that came twice stands there twice
        caller = await self._authenticator.authenticate(metadata)
        if rule.counted is not None:
            await self._limits.admit(caller, rule.counted)

        async def still_welcome() -> None:
            if await self._authenticator.authenticate(metadata) != caller:
                raise PermissionDeniedError("Your role was changed meanwhile; call again.")

        request.state.caller = caller
        request.state.refused = (
            _never if self._authenticator.lasting else partial(until_refused, still_welcome, self._recheck)
        )


async def refused(request: Request) -> None:
    """Return never; raise when the caller may not go on. For streams, beside their work."""
    await request.state.refused()


async def _never() -> None:
    await asyncio.Event().wait()


def caller_of(request: Request) -> Caller:
    """Return who makes the request. Raises UnauthenticatedError where nobody was let in."""
    caller = getattr(request.state, "caller", None)
    if not isinstance(caller, Caller):
        raise UnauthenticatedError("This call was made by nobody we know.")
    return caller


def route_of(request: Request) -> str:
    """Return the route's own path, with its parameters' names."""
    route = request.scope.get("route")
    return route.path if isinstance(route, APIRoute) else ""


def _nobody() -> NoReturn:
    raise PermissionDeniedError("Nobody may call this address.")
