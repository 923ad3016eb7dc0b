"""Streams to clients who may be slow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import grpc

from nanobatch_gateway.domain import Message, ReaderTooSlowError

STALL_LIMIT = timedelta(seconds=30)
"""How long a client may leave one message lying before its stream is cut."""


def writer(context: grpc.aio.ServicerContext[Any, Any], stall: timedelta) -> Callable[[Message], Awaitable[None]]:
    """Return what sends a message to the client. It raises ReaderTooSlowError where that takes longer than ``stall``.

    Writing here, rather than yielding, is what gives the time limit; and a cancelled call is cancelled inside the use
    case, which then closes what it has open.
    """

    async def write(message: Message) -> None:
        try:
            async with asyncio.timeout(stall.total_seconds()):
                await context.write(message)
        except TimeoutError:
            raise ReaderTooSlowError(f"Nothing was read for {stall.total_seconds():g} s.") from None

    return write
