"""A stream lasts no longer than its caller's right to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any, TypeAlias, TypeVar

import grpc

from nanobatch_gateway.recheck import until_refused
from nanobatch_runtime.lifecycle import cancel

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
T = TypeVar("T")

_END = object()


def guarded(handler: Handler, recheck: Callable[[], Awaitable[None]], every: timedelta) -> Handler:
    """Return the handler of a stream such that it ends with what ``recheck`` raises; a unary one as it is.

    That storage cannot be asked ends nothing: nobody has said then that the caller may not go on.
    """
    codec = {
        "request_deserializer": handler.request_deserializer,
        "response_serializer": handler.response_serializer,
    }
    if handler.response_streaming:
        streams = handler.request_streaming
        inner: Any = handler.stream_stream if streams else handler.unary_stream
        make = grpc.stream_stream_rpc_method_handler if streams else grpc.unary_stream_rpc_method_handler

        async def respond(request: Any, context: Any) -> AsyncIterator[Any]:
            async with _guard(recheck, every) as guard, aclosing(inner(request, context)) as responses:
                while (response := await _unless(guard, anext(responses, _END))) is not _END:
                    yield response

        return make(respond, **codec)
    if handler.request_streaming:
        take: Any = handler.stream_unary

        async def answer(requests: Any, context: Any) -> Any:
            async with _guard(recheck, every) as guard:
                return await _unless(guard, take(requests, context))

        return grpc.stream_unary_rpc_method_handler(answer, **codec)
    return handler


@asynccontextmanager
async def _guard(recheck: Callable[[], Awaitable[None]], every: timedelta) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(until_refused(recheck, every), name="recheck")
    try:
        yield task
    finally:
        await cancel(task)


async def _unless(guard: asyncio.Task[None], work: Awaitable[T]) -> T:
    """Return what ``work`` does, unless the guard ends first: then the work is cancelled, and its error raised."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task, guard}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await guard  # raises
        return await task
    finally:
        await cancel(task)  # though it be done: whoever is cancelled meanwhile takes its error along
