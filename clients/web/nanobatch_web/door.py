"""Before everything else: who may reach the page at all, and what a browser may do with it.

Loopback is no login: any web page can send requests to a local port, and a name can be made to point there. So the host
must be one of ours by exact name, and what changes something must come from our own pages (docs/security.md).
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanobatch_runtime.own_names import OwnNames

HEALTH = "/healthz"
"""Says that the event loop turns, to whoever asks under whatever name: probes know the machine's address alone."""

_RULES = frozenset({b"content-security-policy", b"x-content-type-options", b"referrer-policy"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Door:
    """ASGI middleware: exact hosts, own origin, and a policy that lets nothing be loaded from elsewhere."""

    def __init__(self, app: ASGIApp, *, names: OwnNames, pictures: str) -> None:
        """``names`` are the page's; ``pictures`` the sources of pictures besides our own."""
        self._app = app
        self._names = names
        policy = (
            "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
            f"img-src 'self' data: blob: {pictures}; font-src 'self' data:; connect-src 'self' {pictures}; "
            "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
        )
        self._rules = [
            (b"content-security-policy", policy.encode("latin-1")),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"same-origin"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer 403."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] == "http" and scope["path"] == HEALTH and scope["method"] == "GET":
            await PlainTextResponse("ok")(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if scope["type"] != "http" or not self._is_ours(headers, str(scope["method"])):
            await PlainTextResponse("This address is not for other sites.", 403)(scope, receive, send)
            return

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [one for one in message["headers"] if one[0].lower() not in _RULES] + self._rules
            await send(message)

        await self._app(scope, receive, with_policy)

    def _is_ours(self, headers: Headers, method: str) -> bool:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._names.hosts:
            return False
        origin = headers.get("origin")
        if origin is not None:
            return origin.lower() in self._names.origins
        # Browsers say where a request comes from; other programs do not, and cannot be made to act by a web page.
        site = headers.get("sec-fetch-site", "none")
        return site in {"none", "same-origin"} or (
            method in _SAFE_METHODS and headers.get("sec-fetch-mode") == "navigate"
        )
