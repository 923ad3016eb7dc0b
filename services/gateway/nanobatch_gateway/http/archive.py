"""An execution's pictures as one ZIP file, for browsers and ``curl -OJ``."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from nanobatch_gateway.domain import ReaderTooSlowError
from nanobatch_gateway.export import ExportExecution
from nanobatch_gateway.http.access import caller_of, refused
from nanobatch_runtime.lifecycle import cancel


def archive_routes(export: ExportExecution, *, stall: timedelta) -> APIRouter:
    """Return the route; ``stall`` is how long a client may leave one piece lying."""
    router = APIRouter()

    @router.get(
        "/api/executions/{execution_id}/archive.zip",
        response_class=Response,
        responses={200: {"content": {"application/zip": {}}}},
        summary="Take its pictures home",
    )
    async def archive(request: Request, execution_id: str, result_ids: str = "") -> Response:
        """All pictures that are there, or those of `result_ids` (ids with commas between), with a list of all results."""
        ids = [each.strip() for each in result_ids.split(",") if each.strip()]
        return _Archive(export, request, execution_id, ids, stall=stall)

    return router


class _Archive(Response):
    def __init__(
        self, export: ExportExecution, request: Request, execution_id: str, result_ids: list[str], *, stall: timedelta
    ) -> None:
        super().__init__()
        self._export = export
        self._request = request
        self._execution_id = execution_id
        self._result_ids = result_ids
        self._stall = stall.total_seconds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        sending = asyncio.create_task(self._send(send), name="archive-send")
        asking = asyncio.create_task(refused(self._request), name="archive-recheck")
        leaving = asyncio.create_task(_gone(receive), name="archive-client")
        try:
            await asyncio.wait({sending, asking, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                await sending
            elif asking.done():
                await asking  # raises
        finally:
            for task in (sending, asking, leaving):
                await cancel(task)

    async def _send(self, send: Send) -> None:
        caller = caller_of(self._request)
        async with self._export(caller, self._execution_id, self._result_ids) as pieces:
            first = await anext(pieces)  # errors until here get an answer of their own
            await send({"type": "http.response.start", "status": 200, "headers": self._head()})
            await self._piece(send, first)
            async for piece in pieces:
                await self._piece(send, piece)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _piece(self, send: Send, piece: bytes) -> None:
        try:
            async with asyncio.timeout(self._stall):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except TimeoutError:
            raise ReaderTooSlowError(f"Nothing was read for {self._stall:g} s.") from None

    def _head(self) -> list[tuple[bytes, bytes]]:
        name = f"nanobatch-{self._execution_id[:8]}.zip"  # a checked id by now: hex digits
        return [
            (b"content-type", b"application/zip"),
            (b"content-disposition", f'attachment; filename="{name}"'.encode()),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
        ]


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
