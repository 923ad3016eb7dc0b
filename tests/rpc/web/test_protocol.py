"""The page's HTTP over real connections: what has no end is cut, what is large and has one is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from nanobatch_web.protocol import MAX_HEADER_BYTES, BoundedProtocol


async def count(scope: Scope, receive: Receive, send: Send) -> None:
    size = len(await Request(scope, receive).body())
    await PlainTextResponse(f"{size} bytes, {len(scope['query_string'])} in the address")(scope, receive, send)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    config = uvicorn.Config(count, http=BoundedProtocol, lifespan="off", log_config=None, log_level="critical")
    config.load()
    state = uvicorn.server.ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: BoundedProtocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        yield reader, writer
        writer.close()


async def send_for_ever(writer: asyncio.StreamWriter, what: bytes) -> None:
    while True:
        writer.write(what)
        await writer.drain()


@pytest.mark.parametrize(
    "endless",
    [b"X-Many: headers\r\n" * 100, b"x" * 4096],
    ids=["headers without an end", "one header without an end"],
)
async def test_headers_without_an_end_are_cut(endless):
    async with connected() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
        sending = asyncio.create_task(send_for_ever(writer, endless))
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), 10)
        assert answer.startswith(b"HTTP/1.1 400")
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(sending, 10)


async def test_large_bodies_and_long_addresses_pass_on_one_connection():
    query = b"i" * (MAX_HEADER_BYTES - 1024)
    body = b"b" * (4 * MAX_HEADER_BYTES)
    async with connected() as (reader, writer):
        for _ in range(3):
            writer.write(b"POST /?%b HTTP/1.1\r\nHost: localhost\r\n" % query)
            writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            assert head.startswith(b"HTTP/1.1 200")
            told = f"{len(body)} bytes, {len(query)} in the address".encode()
            assert await asyncio.wait_for(reader.readexactly(len(told)), 10) == told
