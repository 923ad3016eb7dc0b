"""In token mode: nothing of the page without a good token, Gradio's own addresses included.

Every call to the gateway carries the token and is checked there; this keeps what this process itself holds (layouts,
events, files on their way) from strangers, and leads people to where they can sign in.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from nanobatch_client import NanobatchError, UnauthenticatedError
from nanobatch_web import texts
from nanobatch_web.routes.answers import refusal
from nanobatch_web.routes.login import login_address, unreachable
from nanobatch_web.routes.plain import navigates
from nanobatch_web.settings import LOGIN, LOGOUT
from nanobatch_web.viewers import Viewers

_OPEN = frozenset({LOGIN, LOGOUT})
_RETRIED = "retry-after"


class Gate:
    """ASGI middleware: who has not signed in is led to the login, or answered 401 where nobody navigates."""

    def __init__(self, app: ASGIApp, viewers: Viewers) -> None:
        """Guard ``app``."""
        self._app = app
        self._viewers = viewers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or lead it away."""
        if scope["type"] == "lifespan" or scope["path"] in _OPEN:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            await self._viewers.require(headers)
        except NanobatchError as error:
            await _led_away(scope, headers, error)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _led_away(scope: Scope, headers: Headers, error: NanobatchError) -> Response:
    if not navigates(scope["method"], headers):
        return refusal(error, texts.language_of(headers))
    if isinstance(error, UnauthenticatedError):
        wanted = scope["path"] + (f"?{scope['query_string'].decode('ascii')}" if scope["query_string"] else "")
        return RedirectResponse(login_address(wanted), 303, headers={"Cache-Control": "no-store"})
    answer = unreachable(texts.language_of(headers))
    answer.headers[_RETRIED] = "3"
    return answer
