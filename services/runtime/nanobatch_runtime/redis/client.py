"""Connections to Redis that nobody waits for in vain."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

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
    return Redis.from_pool(BlockingConnectionPool.from_url(url, **options))
