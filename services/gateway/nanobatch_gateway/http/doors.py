"""Who may speak to this port at all. Any web page can make a browser call a local address, so names are checked first.

A foreign ``Host`` is a name that somebody pointed at this machine (DNS rebinding); a foreign ``Origin`` is a page of
another site. Both are compared whole, name and port: a prefix or a suffix is somebody else's name.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanobatch_gateway.http.errors import HostNotAllowedError, OriginNotAllowedError
from nanobatch_runtime.own_names import OwnNames

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_PREFLIGHT = {
    "access-control-allow-methods": "GET, HEAD, POST",
    "access-control-allow-headers": "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Range",
    "access-control-max-age": "600",
}
_EXPOSED = "Content-Disposition, ETag, Retry-After"


class Doors:
    """Refuses requests that are meant for somebody else, or come from somebody else's page."""

    def __init__(self, app: ASGIApp, names: OwnNames, allowed_origins: Collection[str]) -> None:
        """``allowed_origins`` (``CORS_ORIGIN``) are pages of others that may call, and may read the answer."""
        self._app = app
        self._names = names
        self._allowed = frozenset(allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        headers = Headers(scope=scope)
        origin = _only(headers, "origin")
        self._check(scope["method"], headers, origin)
        if origin in self._allowed and scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await Response(status_code=204, headers=_PREFLIGHT)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, method: str, headers: Headers, origin: str | None) -> None:
        host = _only(headers, "host")
        if host is None or host.lower() not in self._names.hosts:
            raise HostNotAllowedError(
                "This server does not answer to that name; use its own address, or set NANOBATCH_PUBLIC_URL."
            )
        if origin is not None and origin not in self._names.origins and origin not in self._allowed:
            raise OriginNotAllowedError(
                "Pages of other sites may not call this server; CORS_ORIGIN names those that may."
            )
        site = headers.get("sec-fetch-site", "none")
        if method not in _SAFE_METHODS and site not in {"same-origin", "none"} and origin not in self._allowed:
            raise OriginNotAllowedError("Pages of other sites may not change anything here.")


def _only(headers: Headers, name: str) -> str | None:
    """Return a header that may come once; where it came more often, something that nobody is called."""
    values = headers.getlist(name)
    return ", ".join(values) if values else None


class Sharing:
    """Lets pages of ``CORS_ORIGIN`` read what they are answered, errors included."""

    def __init__(self, app: ASGIApp, allowed_origins: Collection[str]) -> None:
        """``allowed_origins`` are whole origins."""
        self._app = app
        self._allowed = frozenset(allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        origin = _only(Headers(scope=scope), "origin")
        await self._app(scope, receive, _shared_with(origin, send) if origin in self._allowed else send)


def _shared_with(origin: str | None, send: Send) -> Send:
    async def shared(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["access-control-allow-origin"] = origin or ""
            headers["access-control-expose-headers"] = _EXPOSED
            headers.add_vary_header("Origin")
        await send(message)

    return shared
