"""A name server on loopback: what a name resolves to is a list that a test changes."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Names(asyncio.DatagramProtocol):
    """Answers every question for an IPv4 address with all of ``addresses``. Make it with :func:`name_server`."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.port = 0

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr) -> None:
        end = data.index(0, 12) + 5
        question, (kind,) = data[12:end], struct.unpack("!H", data[end - 4 : end - 2])
        found = self.addresses if kind == 1 else []
        answer = data[:2] + struct.pack("!HHHHH", 0x8180, 1, len(found), 0, 0) + question
        for address in found:
            answer += struct.pack("!HHHIH", 0xC00C, 1, 1, 1, 4) + socket.inet_aton(address)
        self.transport.sendto(answer, addr)

    def target(self, name: str, port: int) -> str:
        """Return the gRPC target of a name that is looked up here."""
        return f"dns://127.0.0.1:{self.port}/{name}:{port}"


@asynccontextmanager
async def name_server() -> AsyncIterator[Names]:
    """Answer while the context is open."""
    loop = asyncio.get_running_loop()
    transport, names = await loop.create_datagram_endpoint(Names, local_addr=("127.0.0.1", 0))
    try:
        yield names
    finally:
        transport.close()
