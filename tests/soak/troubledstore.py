"""An object store that goes wrong: a proxy of HTTP before the real one, which knows requests and not only bytes."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

KINDS = ("refused", "answer lost", "cut", "slow", "other etag", "not there yet")
"""A 500 before anything was done; a 500 after it was; an answer that breaks off; one that dawdles; an answer with another
ETag; a 404 for what was written."""
_NO_SUCH_KEY = b"<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>"
_MOST_BYTES = 64 * 1024 * 1024


class TroubledStore:
    """``share`` of all requests meet one of ``kinds``; both may be changed at any time. ``done`` counts what was done."""

    def __init__(self, url: str, seed: int) -> None:
        self.share = 0.0
        self.kinds: tuple[str, ...] = KINDS
        self.done: Counter[str] = Counter()
        self.port = 0
        self._turn = 0
        self._url = url
        self._random = random.Random(seed)
        self._client: aiohttp.ClientSession

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[TroubledStore]:
        app = web.Application(client_max_size=_MOST_BYTES)
        app.router.add_route("*", "/{path:.*}", self._pass)
        runner = web.AppRunner(app, access_log=None)
        async with aiohttp.ClientSession(auto_decompress=False) as self._client:
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.port = runner.addresses[0][1]
            try:
                yield self
            finally:
                await runner.cleanup()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        kind = ""
        if self._random.random() < self.share:  # one kind after the other, so that a short run meets all
            kind = self.kinds[self._turn % len(self.kinds)]
            self._turn += 1
        self.done[kind] += 1
        if kind == "refused":
            return web.Response(status=500)
        if kind == "not there yet" and request.method in {"GET", "HEAD"} and "list-type" not in request.query:
            return web.Response(status=404, body=_NO_SUCH_KEY if request.method == "GET" else None)
        if kind == "slow":
            await asyncio.sleep(self._random.uniform(0.5, 2))
        headers = {name: value for name, value in request.headers.items() if name != "Transfer-Encoding"}
        async with self._client.request(
            request.method, f"{self._url}{request.raw_path}", headers=headers, data=await request.read()
        ) as found:
            body = await found.read()
            answer = {name: value for name, value in found.headers.items() if name not in {"Connection", "Server"}}
            status = found.status
        if kind == "answer lost":
            return web.Response(status=500)
        if kind == "other etag" and "ETag" in answer:
            answer["ETag"] = '"00000000000000000000000000000000"'
        if kind == "cut" and request.method != "HEAD":
            return await self._cut(request, status, answer, body)
        answer.pop("Content-Length", None)
        if request.method == "HEAD":
            answer["Content-Length"] = found.headers.get("Content-Length", "0")
        return web.Response(status=status, headers=answer, body=body if request.method != "HEAD" else None)

    async def _cut(self, request: web.Request, status: int, headers: dict[str, str], body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers={**headers, "Content-Length": str(len(body) + 1)})
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        if request.transport is not None:
            request.transport.abort()
        return response
