"""Around every request: bounds on its body, one form for every error, and no surprise that shows anything."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from datetime import timedelta

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanobatch_gateway.http.errors import BodyTooLargeError, BodyTooSlowError, error_response
from nanobatch_gateway.http.observed import route_of
from nanobatch_runtime.errors import NanobatchError

_log = structlog.get_logger("nanobatch.http")

CHUNK_LIMIT = timedelta(seconds=30)
"""How long the next piece of a body may take."""
BODY_LIMIT = timedelta(minutes=5)
"""How long a whole body may take."""
_REST_BYTES = 16 * 1024 * 1024
_REST_TIME = timedelta(seconds=5)


class Guard:
    """Outermost of ours: whatever happens inside, the client gets JSON, and the server's own handler never sees it."""

    def __init__(self, app: ASGIApp, max_body_bytes: int, chunk_limit: timedelta = CHUNK_LIMIT) -> None:
        """``max_body_bytes`` is what the largest good request may have."""
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._chunk_limit = chunk_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        body = _Body(scope, receive, self._max_body_bytes, self._chunk_limit)
        response = _Started(send)
        try:
            body.check_announced()
            await self._app(scope, body.receive, response.send)
        except ClientDisconnect:
            return
        except NanobatchError as error:
            await self._refuse(error, scope, body, response)
        except Exception as error:  # noqa: BLE001  # the last resort: nothing unforeseen may show a trace to a caller
            incident = uuid.uuid4().hex[:12]
            _log.error("http.failed", route=route_of(scope), incident=incident, exc_info=error)
            surprise = NanobatchError(
                f"Something went wrong on our side; the server's log has it as incident {incident}.",
                metadata={"incident": incident},
            )
            await self._refuse(surprise, scope, body, response)

    async def _refuse(self, error: NanobatchError, scope: Scope, body: _Body, response: _Started) -> None:
        if response.started:  # too late for an answer; an unfinished one is how the client learns of it
            _log.warning("http.cut", route=route_of(scope), reason=error.reason)
            return
        headers = {} if await body.is_whole() else {"connection": "close"}
        await error_response(error, headers)(scope, body.receive, response.send)


class _Started:
    """Knows whether an answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def send(self, message: Message) -> None:
        self.started = True
        if message["type"] == "http.response.start":
            headers: list[tuple[bytes, bytes]] = message.setdefault("headers", [])
            message["headers"] = [*headers, (b"x-content-type-options", b"nosniff")]
        await self._send(message)


class _Body:
    """A request's body: counted, and not waited for without end."""

    def __init__(self, scope: Scope, receive: Receive, max_bytes: int, chunk_limit: timedelta) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._chunk_limit = chunk_limit.total_seconds()
        self._deadline = asyncio.get_running_loop().time() + BODY_LIMIT.total_seconds()
        self._size = 0
        headers = dict(scope["headers"])
        self._announced = headers.get(b"content-length", b"0")
        self._ended = self._announced == b"0" and b"transfer-encoding" not in headers

    def check_announced(self) -> None:
        """Raise BodyTooLargeError before anything is read where the client says itself that it is too much."""
        if int(self._announced) > self._max_bytes:  # h11 lets only digits through
            raise self._too_large()

    async def receive(self) -> Message:
        """See ASGI. Raises BodyTooLargeError and BodyTooSlowError."""
        if self._ended:
            return await self._receive()
        left = self._deadline - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(min(self._chunk_limit, left)):
                message = await self._receive()
        except TimeoutError:
            raise BodyTooSlowError("The request did not come in time; send it again.") from None
        self._ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
        self._size += len(message.get("body", b""))
        if self._size > self._max_bytes:
            raise self._too_large()
        return message

    async def is_whole(self) -> bool:
        """Throw away a bounded rest, so that a client that still sends gets to read its answer; say whether that was all."""
        left = _REST_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(_REST_TIME.total_seconds()):
                while not self._ended and left > 0:
                    message = await self._receive()
                    left -= len(message.get("body", b""))
                    self._ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return self._ended

    def _too_large(self) -> BodyTooLargeError:
        return BodyTooLargeError(f"The request is larger than {self._max_bytes // 2**20} MiB.")
