"""What has changed in a run since a browser last asked.

Asked often and answered at once, rather than a stream that stays open: a browser opens six connections to one host, so
the seventh tab of a stream would starve. What is asked most is answered first: before FastAPI, whose layers cost several
times what the answer does.
"""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from nanobatch_client import NanobatchError
from nanobatch_web import texts
from nanobatch_web.live.hub import Hub
from nanobatch_web.routes.answers import refusal
from nanobatch_web.settings import OWN
from nanobatch_web.viewers import Viewers

_PATH = f"{OWN}/live/"
_QUICK, _SLOW = 250, 2000
_QUESTIONS_A_SECOND = 500
"""More browsers than this process can answer so often are asked to come less often: that costs it a quarter of a core."""


class Live:
    """ASGI middleware: answers ``GET nb/live/{id}?since=&epoch=&tab=``, and hands on everything else."""

    def __init__(self, app: ASGIApp, hub: Hub, viewers: Viewers) -> None:
        """Stand before ``app``."""
        self._app = app
        self._hub = hub
        self._viewers = viewers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        if scope["type"] != "http" or scope["method"] != "GET" or not scope["path"].startswith(_PATH):
            await self._app(scope, receive, send)
            return
        try:
            body, pause = await self._newer(scope)
        except NanobatchError as error:
            await refusal(error, texts.language_of(Headers(scope=scope)))(scope, receive, send)
            return
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"x-poll-milliseconds", b"%d" % pause),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _newer(self, scope: Scope) -> tuple[bytes, int]:
        """Return what is newer than what the browser has, and in how many milliseconds it should ask again."""
        asked = {name: values[-1] for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()}
        viewer = await self._viewers.of(Headers(scope=scope))
        feed = await self._hub.view(viewer, scope["path"].removeprefix(_PATH), asked.get("tab", "")[:32])
        try:
            since = int(asked.get("since", ""))
        except ValueError:
            since = -1  # who does not know what they have gets everything
        return feed.run.delta(since, asked.get("epoch", "")), _SLOW if feed.run.is_final else self._pause()

    def _pause(self) -> int:
        return min(_SLOW, max(_QUICK, 1000 * self._hub.tabs // _QUESTIONS_A_SECOND))
