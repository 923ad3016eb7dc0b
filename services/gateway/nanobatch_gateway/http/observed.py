"""What is told of every request: under which id, how it ended. The same as of gRPC calls."""

from __future__ import annotations

import time
from contextlib import nullcontext

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanobatch_runtime import requests, tracing
from nanobatch_runtime.metrics import HTTP_REQUESTS

_log = structlog.get_logger("nanobatch.http")


class Observed:
    """Outermost of all: what the layers inside refuse is told as well."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap ``app``."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class. The answer names the id, so that whoever asks for help can give it."""
        headers, method = Headers(scope=scope), _method(scope)
        requests.adopt(requests.made_or(headers.get(requests.HEADER, "")))
        tracing.adopt(headers.get(tracing.HEADER, ""))
        began, status = time.perf_counter(), 499  # as others write it: the client went away before an answer

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                name = (requests.HEADER.encode(), requests.current().encode())
                message["headers"] = [*message.get("headers", []), name]
            await send(message)

        try:
            # Reads may be streams that last, or pictures by the hundred; what asks for work is a POST.
            with tracing.span("POST", "SERVER") if method == "POST" else nullcontext():
                await self._app(scope, receive, answer)
        finally:
            route = route_of(scope)
            HTTP_REQUESTS.labels(route, str(status)).inc()
            seconds = round(time.perf_counter() - began, 4)
            _log.info("http.served", route=route, method=method, code=status, seconds=seconds)


def route_of(scope: Scope) -> str:
    """Return what may be shown of an address: the route, never the path or the query."""
    return str(getattr(scope.get("route"), "path", "unknown"))


def _method(scope: Scope) -> str:
    method = str(scope["method"])
    return method if method in {"GET", "HEAD", "POST", "OPTIONS"} else "other"
