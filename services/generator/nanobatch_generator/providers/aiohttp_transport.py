"""aiohttp under httpx: the errors and manners of the one, the speed of the other.

Pictures arrive as megabytes of base64, which httpx's own transport moves in pure Python: 10 ms of the event loop for a
picture of 1.5 MB, where aiohttp's parser in C takes 2.5. What httpx raises stays the language of everything above.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final
from urllib.request import getproxies

import aiohttp
import httpx
from multidict import CIMultiDict
from yarl import URL

from nanobatch_runtime.failpoints import armed, failpoint

_IDLE_SECONDS: Final = 30.0


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends httpx requests through one aiohttp session and reads each answer whole. Never repeats a POST by itself."""

    def __init__(self, context: ssl.SSLContext) -> None:
        """``context`` is the only one; the session is made at the first request, in the loop that it will live in."""
        self._context = context
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx. A cancelled request closes its connection."""
        limits = request.extensions.get("timeout", {})
        try:
            async with self._open().request(
                request.method,
                URL(str(request.url), encoded=True),
                headers=CIMultiDict(request.headers.multi_items()),
                data=await request.aread() or None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, connect=limits.get("connect"), sock_read=limits.get("read")),
            ) as answer:
                failpoint("first_answer_byte")
                content = await answer.read()
                failpoint("answer_complete")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _translated(error, request) from error
        headers = [
            (name, value)
            for name, value in answer.headers.items()
            # Already undone: httpx would undo it once more.
            if name.lower() not in {"content-encoding", "content-length", "transfer-encoding"}
        ]
        return _WholeResponse(answer.status, headers=headers, content=content, request=request)

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # The buckets' windows bound the calls in flight; a second bound here would make calls wait in line.
                connector=aiohttp.TCPConnector(ssl=self._context, limit=0, keepalive_timeout=_IDLE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                # With it each request asks threads for proxies and for .netrc, whose passwords are not for providers.
                trust_env=bool(getproxies()),
                trace_configs=[_told_when_sent()] if armed("request_sent") else None,
            )
        return self._session


def _told_when_sent() -> aiohttp.TraceConfig:
    async def sent(_session: object, _context: object, _params: object) -> None:
        # aiohttp tells of a piece just before it writes it, and does not let the loop go on in between.
        asyncio.get_running_loop().call_soon(lambda: failpoint("request_sent"))

    trace = aiohttp.TraceConfig()
    trace.on_request_chunk_sent.append(sent)
    return trace


class _WholeResponse(httpx.Response):
    """An answer whose text is made in one step: httpx's own way copies it twice more."""

    @property
    def text(self) -> str:
        return self.content.decode(self.encoding or "utf-8", errors="replace")


def _translated(error: Exception, request: httpx.Request) -> httpx.RequestError:
    # The order matters: what is caught first is the narrower class. Everything that cannot be shown to have happened
    # before the request was sent must not be a connect error, for those are taken to cost nothing.
    match error:
        case aiohttp.ConnectionTimeoutError():
            kind: type[httpx.RequestError] = httpx.ConnectTimeout
        case aiohttp.ClientConnectorError() | aiohttp.ClientConnectorDNSError():
            kind = httpx.ConnectError
        case aiohttp.ClientHttpProxyError():
            kind = httpx.ProxyError
        case aiohttp.InvalidURL():
            kind = httpx.UnsupportedProtocol
        case TimeoutError():
            kind = httpx.ReadTimeout
        case aiohttp.ClientPayloadError() | aiohttp.ClientResponseError() | aiohttp.ServerDisconnectedError():
            kind = httpx.RemoteProtocolError
        case _:
            kind = httpx.ReadError
    return kind(str(error) or type(error).__name__, request=request)
