"""The listening side: uvicorn inside our own loop, bounded where it has no bounds of its own."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from nanobatch_gateway.http.errors import error_body
from nanobatch_runtime.errors import InvalidArgumentError, UnavailableError
from nanobatch_runtime.lifecycle import cancel

HEADER_LIMIT = timedelta(seconds=10)
"""How long a client may take from connecting, or from its first byte, to the end of its headers."""
IDLE_LIMIT = timedelta(seconds=15)
"""How long a connection may stay open between two requests."""
MAX_HEADER_BYTES = 16 * 1024
MAX_CONNECTIONS = 2_000


class MalformedRequestError(InvalidArgumentError):
    """What came is not HTTP, or its headers are larger than 16 KiB."""

    reason = "MALFORMED_REQUEST"


class HttpServer:
    """One listening HTTP server. The port is ours from the beginning; :meth:`serving` answers on it."""

    def __init__(self, address: str) -> None:
        """Take ``host:port`` (port 0: a free one). Raises UnavailableError (ADDRESS_IN_USE)."""
        host, _, port = address.rpartition(":")
        self._host = host
        try:
            self._socket = _listening(host.strip("[]"), int(port))
        except OSError as error:
            message = (
                f"Cannot listen on {address}: is something else running there? NANOBATCH_GATEWAY_HTTP takes another "
                "address, or off."
            )
            raise UnavailableError(message, reason="ADDRESS_IN_USE") from error

    @property
    def address(self) -> str:
        """``host:port`` with the real port."""
        return f"{self._host}:{self._socket.getsockname()[1]}"

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()

    @asynccontextmanager
    async def serving(self, app: ASGIApp, grace: timedelta) -> AsyncIterator[None]:
        """Answer requests while the context is open; at its end running ones have ``grace`` to finish."""
        config = uvicorn.Config(
            app,
            http=_BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",  # garbage from strangers is no warning of ours
            access_log=False,  # addresses of pictures are permissions
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=int(IDLE_LIMIT.total_seconds()),
            timeout_graceful_shutdown=max(1, math.ceil(grace.total_seconds())),
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        )
        server = _Server(config)
        running = asyncio.create_task(server.serve(sockets=[self._socket]), name="http-server")
        up = asyncio.create_task(server.up.wait(), name="http-server-up")
        try:
            await asyncio.wait({running, up}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                await running
            yield
        finally:
            await cancel(up)
            server.should_exit = True
            await running


class _Server(uvicorn.Server):
    """Uvicorn's server without its signal handlers: the process belongs to whoever started it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


class _BoundedProtocol(H11Protocol):
    """Uvicorn's protocol with a time limit for headers, and JSON for what is not HTTP."""

    _headers_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._expect_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._expect_headers()
        else:
            self._expect_nothing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # ours says more
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:  # an answer has begun: nothing fits any more
            self.transport.close()
            return
        error = MalformedRequestError("This is no HTTP request that we understand, or its headers exceed 16 KiB.")
        body = error_body(error)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _expect_headers(self) -> None:
        if self._headers_due is None:
            self._headers_due = self.loop.call_later(HEADER_LIMIT.total_seconds(), self.transport.abort)

    def _expect_nothing(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None


def _listening(host: str, port: int) -> socket.socket:
    family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.create_server((host, port), family=family, backlog=1024)
    listener.setblocking(False)  # noqa: FBT003  # the standard library's signature
    return listener
