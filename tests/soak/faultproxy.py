"""A TCP proxy for one hop, which does to its connections what networks do."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from enum import Enum, auto
from types import TracebackType
from typing import Protocol, Self

_PIECE = 65_536
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of 0: close sends RST instead of FIN


class Mode(Enum):
    """What happens to bytes that come while it is set."""

    PASS = auto()
    BLACKHOLE = auto()
    """Nothing arrives, in neither direction; connections stay."""
    HALF_OPEN = auto()
    """Requests arrive, answers do not."""
    REFUSE = auto()
    """New connections are reset at once; old ones go on."""


class Listener(Protocol):
    """Reads one connection's bytes along; returns True where the answer it has just seen is to be lost."""

    def asked(self, data: bytes) -> None:
        """Bytes of the client."""
        ...

    def answers(self, data: bytes) -> bool:
        """Bytes of the server, not passed on yet."""
        ...


class _Connection:
    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter, listener: Listener | None) -> None:
        self.near, self.far, self.listener = near, far, listener
        self.tasks: list[asyncio.Task[None]] = []

    def reset(self) -> None:
        for writer in (self.near, self.far):
            raw = writer.get_extra_info("socket")
            if raw is not None:
                with suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        for task in self.tasks:
            task.cancel()


class FaultProxy:
    """Listens on a free port of loopback and connects on to ``port``, while its context is open."""

    def __init__(self, port: int, *, seed: int = 0) -> None:
        self.port = 0
        self.mode = Mode.PASS
        self.delay = 0.0
        """Seconds that every piece waits."""
        self.bytes_per_second = 0
        """How fast pieces go on; 0: as they come."""
        self.cut_after: int | None = None
        """Reset a connection once so many bytes of answers have passed over it."""
        self._listener: Callable[[], Listener] | None = None
        self.lost_answers = 0
        self.resets = 0
        self._far_port = port
        self._connections: set[_Connection] = set()
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=4 * _PIECE)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.reset()
        await asyncio.sleep(0)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    def reset(self, share: float = 1.0) -> int:
        """Reset a random share of the open connections; returns how many."""
        chosen = [one for one in self._connections if share >= 1 or self._random.random() < share]
        for one in chosen:
            one.reset()
        self.resets += len(chosen)
        return len(chosen)

    def listen(self, listener: Callable[[], Listener] | None) -> None:
        """Make a listener for each connection from now on; those that are open are reset."""
        self._listener = listener
        self.reset()

    async def _accept(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        if self.mode is Mode.REFUSE:
            near.transport.abort()
            return
        try:
            far_reader, far = await asyncio.open_connection("127.0.0.1", self._far_port, limit=4 * _PIECE)
        except OSError:
            near.transport.abort()
            return
        one = _Connection(near, far, self._listener() if self._listener is not None else None)
        self._connections.add(one)
        one.tasks = [
            asyncio.create_task(self._ask(one, reader, far)),
            asyncio.create_task(self._answer(one, far_reader, near)),
        ]
        try:
            await asyncio.wait(one.tasks)
        except asyncio.CancelledError:  # the loop ends; asyncio's streams would print it
            one.reset()
        self._connections.discard(one)
        for writer in (near, far):
            writer.transport.abort()

    async def _ask(self, one: _Connection, reader: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        async for data in self._pieces(reader, through=self.mode_lets_requests_through):
            if one.listener is not None:
                one.listener.asked(data)
            to.write(data)
            with suppress(OSError):
                await to.drain()
        to.close()

    async def _answer(self, one: _Connection, reader: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        passed = 0
        async for data in self._pieces(reader, through=self.mode_lets_answers_through):
            passed += len(data)
            if self.cut_after is not None and passed > self.cut_after:
                self.resets += 1
                one.reset()
                return
            if one.listener is not None and one.listener.answers(data):
                self.lost_answers += 1
                one.reset()
                return
            to.write(data)
            with suppress(OSError):
                await to.drain()
        to.close()

    def mode_lets_requests_through(self) -> bool:
        return self.mode is not Mode.BLACKHOLE

    def mode_lets_answers_through(self) -> bool:
        return self.mode not in {Mode.BLACKHOLE, Mode.HALF_OPEN}

    async def _pieces(self, reader: asyncio.StreamReader, *, through: Callable[[], bool]) -> AsyncIterator[bytes]:
        while True:
            try:
                data = await reader.read(_PIECE)
            except OSError:
                return
            if not data:
                return
            while not through():  # noqa: ASYNC110  # the mode is a plain attribute that tests set
                await asyncio.sleep(0.02)
            if self.delay:
                await asyncio.sleep(self.delay)
            if self.bytes_per_second:
                await asyncio.sleep(len(data) / self.bytes_per_second)
            yield data
