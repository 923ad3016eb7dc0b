"""Just enough HTTP/2 to open gRPC streams by hand: a reader that costs almost nothing, or one that never reads at all."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable
from typing import cast

WATCH = "/nanobatch.gateway.v1.ExecutionService/WatchExecution"

_DATA, _HEADERS, _SETTINGS, _PING, _WINDOW_UPDATE = 0, 1, 4, 6, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_LARGEST_WINDOW = 2**31 - 1
_INITIAL_WINDOW_SIZE = 4
_DEFAULT_WINDOW = 65_535


def narrow_opening() -> bytes:
    """Return what a connection begins with that leaves windows as they are: 64 KB, then the server has to wait."""
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, b"")


def opening() -> bytes:
    """Return what a connection begins with: windows so large that the server is never held back by them."""
    settings = struct.pack("!HI", _INITIAL_WINDOW_SIZE, _LARGEST_WINDOW)
    window = struct.pack("!I", _LARGEST_WINDOW - _DEFAULT_WINDOW)
    return (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW_UPDATE, 0, 0, window)
    )


def request(stream: int, path: str, message: bytes) -> bytes:
    """Return a call on an odd stream number."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in headers.items())
    body = struct.pack("!BI", 0, len(message)) + message
    return _frame(_HEADERS, _END_HEADERS, stream, block) + _frame(_DATA, _END_STREAM, stream, body)


class Reader(asyncio.Protocol):
    """Reads the messages of all streams of a connection: ``arrived(stream, message, at)``, with time.time()."""

    def __init__(self, calls: list[bytes], arrived: Callable[[int, bytes, float], None]) -> None:
        """``calls`` are the messages of as many calls of :data:`WATCH`, on streams 1, 3, 5 and so on."""
        self.ended = asyncio.Event()
        """Set when all streams have ended, or the connection has."""
        self._calls = calls
        self._arrived = arrived
        self._open = len(calls)
        self._input = bytearray()
        self._bodies = {1 + 2 * number: bytearray() for number in range(len(calls))}
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send everything at once."""
        self._transport = cast("asyncio.Transport", transport)
        calls = (request(1 + 2 * number, WATCH, message) for number, message in enumerate(self._calls))
        self._transport.write(opening() + b"".join(calls))

    def data_received(self, data: bytes) -> None:
        """Take whole frames off the input."""
        at = time.time()
        self._input += data
        start = 0
        while len(self._input) - start >= 9:
            length = int.from_bytes(self._input[start : start + 3], "big")
            if len(self._input) - start < 9 + length:
                break
            kind, flags, stream = struct.unpack_from("!BBI", self._input, start + 3)
            self._take(kind, flags, stream, bytes(self._input[start + 9 : start + 9 + length]), at)
            start += 9 + length
        del self._input[:start]

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more will come."""
        self.ended.set()

    def close(self) -> None:
        """Leave."""
        self._transport.close()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes, at: float) -> None:
        if kind in {_SETTINGS, _PING} and not flags & _ACK:
            self._transport.write(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        if kind == _DATA:
            body = self._bodies[stream]
            body += payload
            while len(body) >= 5 and len(body) >= 5 + (length := int.from_bytes(body[1:5], "big")):
                self._arrived(stream, bytes(body[5 : 5 + length]), at)
                del body[: 5 + length]
        if kind in {_DATA, _HEADERS} and flags & _END_STREAM:
            self._open -= 1
            if not self._open:
                self.ended.set()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack("!BBI", kind, flags, stream) + payload


def _text(text: str) -> bytes:
    data = text.encode()
    assert len(data) < 127  # longer ones take more than a byte of length
    return bytes([len(data)]) + data
