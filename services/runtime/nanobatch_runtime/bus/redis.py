"""The bus of many processes: each wakes its own listeners by direct call, and those of the others through Redis."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from nanobatch_runtime.bus.memory import MemoryBus
from nanobatch_runtime.bus.port import Subscription
from nanobatch_runtime.lifecycle import cancel, check_cancelled
from nanobatch_runtime.redis.pubsub import RedisPubSub

_CHANNEL = "hints"
# A hint is its topic's name and nothing else, so that no listener falls behind far enough to be cut off by Redis.
_MOST_PER_MESSAGE = 200
_MOST_PENDING = 10_000
_RETRY_SECONDS = 0.5


class RedisBus:
    """Hints over one channel that every process listens to.

    With a channel per topic a listener would have to wait for Redis before its ear counts, and so would every long poll;
    as it is, subscribing is a local matter. Hints of one topic that pile up while a message is under way are one.
    """

    def __init__(self, pubsub: RedisPubSub) -> None:
        """Make it with :func:`open_redis_bus`."""
        self._pubsub = pubsub
        self._local = MemoryBus()
        self._name = secrets.token_hex(8).encode()
        self._pending: dict[str, None] = {}
        self._wake = asyncio.Event()
        pubsub.on_connect(self._local.wake_all)

    @property
    def up(self) -> bool:
        """Whether Redis has answered lately."""
        return self._pubsub.up

    async def publish(self, topic: str) -> None:
        """See :class:`nanobatch_runtime.bus.port.Bus`."""
        await self._local.publish(topic)
        if self._pubsub.up and len(self._pending) < _MOST_PENDING:
            self._pending[topic] = None
            self._wake.set()

    def subscribe(self, topic: str) -> AbstractAsyncContextManager[Subscription]:
        """See :class:`nanobatch_runtime.bus.port.Bus`."""
        return self._local.subscribe(topic)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[RedisBus]:
        """Send and hear while the context is open."""
        task = asyncio.create_task(self._send(), name="redis-bus")
        try:
            with self._pubsub.listening(_CHANNEL, self._heard):
                yield self
            await self._send_batch()  # the last words of a process that ends
        finally:
            await cancel(task)

    async def _send(self) -> None:
        while True:
            check_cancelled()
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                check_cancelled()
                if not await self._send_batch():
                    await asyncio.sleep(_RETRY_SECONDS)

    async def _send_batch(self) -> bool:
        """Send what is pending, up to a message full. What could not be sent stays pending while Redis is up."""
        topics = list(self._pending)[:_MOST_PER_MESSAGE]
        for topic in topics:
            del self._pending[topic]
        if not topics:
            return True
        sent = await self._pubsub.publish(_CHANNEL, b"\n".join([self._name, *(topic.encode() for topic in topics)]))
        if sent is not None:
            return True
        if self._pubsub.up:
            self._pending.update(dict.fromkeys(topics))
        else:
            self._pending.clear()  # the others look for themselves, and once more when they hear Redis again
        return False

    def _heard(self, payload: bytes) -> None:
        sender, *topics = payload.split(b"\n")
        if sender != self._name:  # its own listeners are awake already
            for topic in topics:
                self._local.wake(topic.decode(errors="replace"))


@asynccontextmanager
async def open_redis_bus(url: str) -> AsyncIterator[RedisBus]:
    """Open a bus over the Redis at ``url``, which may come later."""
    async with RedisPubSub.connected(url) as pubsub, RedisBus(pubsub).running() as bus:
        yield bus
