"""Connections to Redis that nobody waits for in vain."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from nanobatch_runtime.redis.library import (
    AbstractConnection,
    BlockingConnectionPool,
    NoBackoff,
    Redis,
    RedisError,
    RedisLostError,
    Retry,
)

REDIS_ERRORS = (RedisError, OSError, TimeoutError)
"""What a command raises when Redis is away, hangs, or refuses it."""

PREFIX = "nanobatch:"
"""Begins every key and channel, so that others may use the same Redis."""

_CONNECTIONS = 16
_ANSWER = timedelta(seconds=1)


def open_client(url: str, *, answer: timedelta = _ANSWER) -> Redis:
    """Return a client that connects when first used. Close it with ``aclose()``.

    A command that is not answered within ``answer`` raises one of REDIS_ERRORS. Nothing is repeated: each caller knows
    better what a lost command costs than the library does (its default is ten repeats).
    """
    seconds = answer.total_seconds()
    options: dict[str, Any] = {
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": Retry(NoBackoff(), 0),
        "max_connections": _CONNECTIONS,
        "timeout": seconds,  # for a free one of them
        "protocol": 2,  # the third turns on notifications of managed Redis, which nothing here reads
    }
    pool = BlockingConnectionPool.from_url(url, **options)
    kind = pool.connection_class  # by the URL: TCP, TLS or a unix socket
    pool.connection_class = type(f"Told{kind.__name__}", (_ToldWhenLost, kind), {})
    return Redis.from_pool(pool)


class _ToldWhenLost(AbstractConnection):
    """A connection that was closed under a command raises what a lost connection raises.

    Where the other end hangs up between two commands, uvloop raises a bare RuntimeError at the next write.
    """

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:  # noqa: FBT001, FBT002  # the library's signature
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as error:
            await self.disconnect(nowait=True)
            raise RedisLostError("Connection closed by server.") from error
