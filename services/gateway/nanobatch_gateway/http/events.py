"""Server-sent events: the watch, for browsers and ``curl -N``. An event's id is its revision, so a cut stream resumes."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from nanobatch.gateway.v1 import execution_service_pb2
from nanobatch_gateway.domain import ReaderTooSlowError, WatchMessage
from nanobatch_gateway.fields import Violations
from nanobatch_gateway.http.access import caller_of, refused
from nanobatch_gateway.http.errors import error_body
from nanobatch_gateway.http.shapes import execution_view, pause_reason, result_view, stats_view, wait_reason
from nanobatch_gateway.limits import WatchStreams
from nanobatch_gateway.linking import Linker
from nanobatch_gateway.watch import WatchExecution
from nanobatch_runtime.errors import NanobatchError
from nanobatch_runtime.lifecycle import cancel

KEEP_ALIVE = timedelta(seconds=15)
"""How long the stream is silent at most: proxies cut what says nothing."""
_LONGEST_REVISION = 18


def event_routes(watch: WatchExecution, streams: WatchStreams, linker: Linker, *, stall: timedelta) -> APIRouter:
    """Return the route; ``stall`` is how long a client may leave one event lying."""
    router = APIRouter()

    @router.get(
        "/api/executions/{execution_id}/events",
        response_class=Response,
        responses={200: {"content": {"text/event-stream": {}}}, 204: {"description": "It has ended; nothing is new."}},
        summary="Watch an execution",
    )
    async def events(request: Request, execution_id: str, after_revision: str = "") -> Response:
        """Every change since a revision (`Last-Event-ID` or `after_revision`), then live, until it has ended."""
        found = Violations()
        found.id("execution_id", execution_id, required=True)
        given = request.headers.get("last-event-id") or after_revision or "0"
        if not given.isascii() or not given.isdigit() or len(given) > _LONGEST_REVISION:
            found.add("after_revision", "This is no revision; it is a whole number from 0.", "MALFORMED")
        found.raise_any()
        return _EventStream(watch, streams, linker, request, execution_id=execution_id, after=int(given), stall=stall)

    return router


class _EventStream(Response):
    def __init__(
        self,
        watch: WatchExecution,
        streams: WatchStreams,
        linker: Linker,
        request: Request,
        *,
        execution_id: str,
        after: int,
        stall: timedelta,
    ) -> None:
        super().__init__()
        self._watch = watch
        self._streams = streams
        self._linker = linker
        self._request = request
        self._execution_id = execution_id
        self._after = after
        self._stall = stall.total_seconds()
        self._started = False
        self._sent_at = 0.0
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        caller = caller_of(self._request)

        async def on_message(message: WatchMessage) -> None:
            await self._write(send, _event(self._linker.update(caller, message)))

        async def watch() -> None:
            with self._streams.one_of(caller):
                await self._watch(caller, self._execution_id, self._after, on_message)

        watching = asyncio.create_task(watch(), name="events-watch")
        asking = asyncio.create_task(refused(self._request), name="events-recheck")
        leaving = asyncio.create_task(_gone(receive), name="events-client")
        beating = asyncio.create_task(self._keep_alive(send), name="events-keep-alive")
        try:
            await asyncio.wait({watching, leaving, asking}, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                await asking  # raises
            if not watching.done():
                return
            await watching
        except NanobatchError as error:
            if not self._started:
                raise
            # The client tries again by itself, from its last event; where that cannot help it gets a plain answer then.
            await self._write(send, f"event: error\ndata: {error_body(error).decode()}\n\n")
        else:
            if not self._started:  # a browser that reconnects after the end is told to stop by this status
                await send({"type": "http.response.start", "status": 204, "headers": [(b"cache-control", b"no-store")]})
            else:
                await self._write(send, "event: end\ndata: {}\n\n")
        finally:
            for task in (watching, leaving, beating, asking):
                await cancel(task)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, send: Send, text: str) -> None:
        try:
            async with asyncio.timeout(self._stall), self._turn:
                if not self._started:
                    self._started = True
                    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
                self._sent_at = asyncio.get_running_loop().time()
                await send({"type": "http.response.body", "body": text.encode("utf-8", "replace"), "more_body": True})
        except TimeoutError:
            raise ReaderTooSlowError(f"Nothing was read for {self._stall:g} s.") from None

    async def _keep_alive(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        while True:
            silence = loop.time() - self._sent_at
            await asyncio.sleep(max(0.1, KEEP_ALIVE.total_seconds() - silence) if self._started else 1.0)
            if self._started and loop.time() - self._sent_at >= KEEP_ALIVE.total_seconds():
                await self._write(send, ": still here\n\n")


_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


def _event(update: execution_service_pb2.WatchExecutionResponse) -> str:
    kind = update.WhichOneof("update") or "stats"
    data: dict[str, Any] = {"stats": stats_view(update.stats).model_dump()}
    if kind == "result":
        extra = {"variation": update.result.variation, "thumbnail_url": update.result.thumbnail_url or None}
        data["result"] = {**result_view(update.result).model_dump(), **extra}
    elif kind == "execution":
        view = execution_view(update.execution).model_dump()
        data["execution"] = {**view, "pause_reason": pause_reason(update.execution)}
    elif kind == "progress":
        progress = update.progress
        data["progress"] = {
            "result_id": progress.result_id or None,
            "percent": progress.percent,
            "eta_ms": progress.eta.ToMilliseconds() if progress.HasField("eta") else None,
            "waiting": wait_reason(progress.waiting) if progress.HasField("waiting") else None,
        }
    # JSON on one line: a line break inside would end the event.
    place = f"id: {update.revision}\n" if update.revision else ""
    return f"{place}event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
