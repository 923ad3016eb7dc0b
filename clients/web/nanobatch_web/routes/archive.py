"""A run's pictures as one ZIP file: handed on piece by piece from the gateway, nothing is kept here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog
from fastapi import APIRouter, Request, Response
from starlette.types import Receive, Scope, Send

from nanobatch_client import NanobatchError
from nanobatch_runtime.lifecycle import cancel
from nanobatch_web.viewers import Viewers

_log = structlog.get_logger("nanobatch.web")


def router(viewers: Viewers) -> APIRouter:
    """Return the route."""
    routes = APIRouter()

    @routes.get("/runs/{execution_id}/archive.zip")
    async def archive(request: Request, execution_id: str, result_ids: str = "") -> Response:
        viewer = await viewers.of(request.headers)
        pieces = viewer.client.stream_export(execution_id, result_ids=[each for each in result_ids.split(",") if each])
        first = await anext(pieces)  # what is wrong with the question is answered in words
        return _Archive(first, pieces, f"nanobatch-{execution_id[:8]}.zip")

    return routes


class _Archive(Response):
    """Sends an archive until it ends, breaks off or nobody reads any more."""

    def __init__(self, first: bytes, pieces: AsyncGenerator[bytes, None], name: str) -> None:
        super().__init__(media_type="application/zip")
        del self.headers["content-length"]
        self.headers["content-disposition"] = f'attachment; filename="{name}"'
        self.headers["cache-control"] = "no-store"
        self._first = first
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        sending = asyncio.create_task(self._send(send), name="archive-send")
        leaving = asyncio.create_task(_gone(receive), name="archive-client")
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                await sending
        except NanobatchError as error:
            # The answer stays unfinished, so the connection is cut: the browser says that the download failed.
            _log.warning("archive.cut", reason=error.reason)
        finally:
            await cancel(sending)
            await cancel(leaving)

    async def _send(self, send: Send) -> None:
        async with aclosing(self._pieces) as pieces:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
