"""Channels to other services: same limits as the servers, deadlines passed on, errors turned back into ours."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TypeVar

import grpc
from pydantic import SecretStr

from nanobatch_runtime import requests, tracing
from nanobatch_runtime.rpc import options
from nanobatch_runtime.rpc.deadline import timeout_within
from nanobatch_runtime.rpc.service_token import NO_TOKEN, with_service_token
from nanobatch_runtime.rpc.showing import Metadata, showing
from nanobatch_runtime.rpc.status import from_rpc_error

T = TypeVar("T")

UNARY_LIMIT = timedelta(seconds=20)
"""Longest an ordinary internal call may take."""


@asynccontextmanager
async def open_channel(target: str, service_token: SecretStr = NO_TOKEN) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel to ``dns:///host:port``, ``host:port`` or ``unix:/path``; it connects when first used.

    Calls show ``service_token`` where one is given, and to which request they belong: only to our own services.
    """
    async with grpc.aio.insecure_channel(target, options=options.channel(target)) as channel:
        yield showing(with_service_token(channel, service_token), _belonging)


def _belonging() -> Metadata:
    return (*requests.outgoing(), *tracing.outgoing())


async def call(pending: Awaitable[T]) -> T:
    """Await a unary call; a failure becomes :class:`~nanobatch_runtime.errors.RemoteError`."""
    try:
        return await pending
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None


async def stream(responses: AsyncIterable[T]) -> AsyncIterator[T]:
    """Iterate over a stream of responses; a failure becomes :class:`~nanobatch_runtime.errors.RemoteError`."""
    try:
        async for response in responses:
            yield response
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None


def limit(of: timedelta = UNARY_LIMIT) -> float:
    """Seconds for an outgoing call: ``of``, or less where our own caller waits less."""
    return timeout_within(of)
