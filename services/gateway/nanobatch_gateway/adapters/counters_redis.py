"""Counters that all gateways share, in Redis."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from nanobatch_gateway.ports import Beat
from nanobatch_runtime.redis.client import PREFIX, REDIS_ERRORS, open_client
from nanobatch_runtime.redis.library import Redis

# A caller waits for it: what is slower than this counts as gone until the next beat.
_TAKE_SECONDS = 0.1
_BEAT_SECONDS = 0.5
_SILENT_AFTER_SECONDS = 10
_LONGEST_WAIT = 60.0

# Redis' own clock, so that nobody else's matters. The epoch is lost together with the counters.
_BEAT = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[3]))
redis.call('SET', KEYS[2], ARGV[2], 'NX')
return {redis.call('ZCARD', KEYS[1]), redis.call('GET', KEYS[2])}
"""
_KEYS = [f"{PREFIX}gateways", f"{PREFIX}epoch"]


class RedisCounters:
    """See :class:`nanobatch_gateway.ports.Counters`. Make it with :func:`open_counters`.

    Its sliding window goes by how long keys still live in Redis: the clocks of gateways play no part.
    """

    def __init__(self, client: Redis) -> None:
        """``client`` belongs to the caller."""
        self._client = client
        self._name = secrets.token_hex(8)
        # The address is the pool's; this one is never looked up.
        storage = RedisStorage(
            "async+redis://pool:6379",
            implementation="redispy",
            key_prefix=f"{PREFIX}limits",
            connection_pool=client.connection_pool,  # type: ignore[arg-type]  # handed to redis-py as it is
        )
        self._limiter = SlidingWindowCounterRateLimiter(storage)

    async def take(self, key: str, allowance: int) -> float | None:
        """See the port."""
        item = RateLimitItemPerMinute(allowance)
        try:
            async with asyncio.timeout(_TAKE_SECONDS):
                if await self._limiter.hit(item, key):
                    return 0.0
                stats = await self._limiter.get_window_stats(item, key)
        except REDIS_ERRORS:
            return None
        return min(max(stats.reset_time - time.time(), 0.001), _LONGEST_WAIT)

    async def beat(self) -> Beat | None:
        """See the port."""
        words = [*_KEYS, self._name, secrets.token_hex(8), str(_SILENT_AFTER_SECONDS)]
        try:
            async with asyncio.timeout(_BEAT_SECONDS):
                gateways, epoch = await self._client.eval(_BEAT, len(_KEYS), *words)
        except REDIS_ERRORS:
            return None
        return Beat(int(gateways), bytes(epoch).decode())


@asynccontextmanager
async def open_counters(url: str) -> AsyncIterator[RedisCounters]:
    """Open counters in the Redis at ``url``, which may come later."""
    client = open_client(url, answer=timedelta(seconds=_BEAT_SECONDS))
    try:
        yield RedisCounters(client)
    finally:
        with suppress(*REDIS_ERRORS):
            await client.aclose()
