"""Publish and subscribe over one Redis, for what may be lost."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta

import structlog

from nanobatch_runtime.backoff import full_jitter
from nanobatch_runtime.lifecycle import cancel, check_cancelled
from nanobatch_runtime.redis.client import PREFIX, REDIS_ERRORS, open_client
from nanobatch_runtime.redis.library import PubSub

_log = structlog.get_logger("nanobatch.redis")

Handler = Callable[[bytes], None]

_BACKOFF_BASE = timedelta(seconds=0.1)
_BACKOFF_CAP = timedelta(seconds=1)
# A connection on which nothing was heard for this long is asked whether it lives, and given up after twice that.
_SILENCE_SECONDS = 0.9
# How long a new channel waits until it is subscribed to.
_LOOK_SECONDS = 0.25
_ANSWER_SECONDS = 1.0
# Always subscribed to: a connection without any channel could not be asked whether it lives.
_ALIVE = "alive"


class RedisPubSub:
    """One connection that listens for all channels of this process, and another that publishes.

    Outages are logged once, however long; what is published meanwhile is dropped. After every new connection those who
    asked for it are told, because they may have missed something. Make it with :meth:`connected`.
    """

    def __init__(self, url: str) -> None:
        """``url`` as in :class:`RedisSettings`."""
        self._client = open_client(url)
        # Channels know no database number: two systems on two numbers of one Redis must not hear each other.
        self._prefix = f"{PREFIX}{self._client.connection_pool.connection_kwargs.get('db', 0)}:"
        self._handlers: defaultdict[str, set[Handler]] = defaultdict(set)
        self._on_connect: list[Callable[[], None]] = []
        self._subscribed: set[str] = set()
        self._up = False
        self._away_since: float | None = None

    @classmethod
    @asynccontextmanager
    async def connected(cls, url: str) -> AsyncIterator[RedisPubSub]:
        """Listen while the context is open. It may be opened while Redis is away."""
        pubsub = cls(url)
        task = asyncio.create_task(pubsub._run(), name="redis-listener")
        try:
            yield pubsub
        finally:
            await cancel(task)
            with suppress(*REDIS_ERRORS):
                await pubsub._client.aclose()

    @property
    def up(self) -> bool:
        """Whether the listening connection has answered lately."""
        return self._up

    def on_connect(self, told: Callable[[], None]) -> None:
        """Call ``told`` after every new connection: what was published before it is lost."""
        self._on_connect.append(told)

    @contextmanager
    def listening(self, channel: str, handler: Handler) -> Iterator[None]:
        """Give ``handler`` what comes on ``channel`` while the context is open; from within a quarter of a second on."""
        self._handlers[channel].add(handler)
        try:
            yield
        finally:
            self._handlers[channel].discard(handler)
            if not self._handlers[channel]:
                del self._handlers[channel]

    async def publish(self, channel: str, payload: bytes) -> int | None:
        """Publish, and return how many connections heard it; None where nobody can tell. Raises nothing.

        Answers at once while Redis is away, and after a second at most where it hangs.
        """
        if not self._up:
            return None
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return int(await self._client.publish(self._prefix + channel, payload))
        except REDIS_ERRORS as error:
            _log.debug("redis.not_published", error=type(error).__name__)
            return None

    async def _run(self) -> None:
        failures = 0
        while True:
            check_cancelled()
            try:
                await self._listen()
            except REDIS_ERRORS as error:
                failures = 1 if self._up else failures + 1
                self._lost(f"{type(error).__name__}: {error}")
            except Exception:  # noqa: BLE001  # a fault of ours or of the library's: hints are not worth a process
                failures += 1
                _log.exception("redis.failed")
                self._lost("see above")
            await asyncio.sleep(full_jitter(failures, base=_BACKOFF_BASE, cap=_BACKOFF_CAP).total_seconds())

    async def _listen(self) -> None:
        """Give out what comes until the connection breaks (raised)."""
        pubsub = self._client.pubsub()
        try:
            self._subscribed = {_ALIVE}
            await pubsub.subscribe(self._prefix + _ALIVE)
            await self._follow_handlers(pubsub)
            heard, asked = time.monotonic(), True
            await pubsub.ping()  # answered after the subscriptions before it
            while True:
                check_cancelled()
                await self._follow_handlers(pubsub)
                message = await pubsub.get_message(timeout=_LOOK_SECONDS)
                now = time.monotonic()
                if message is not None:
                    heard, asked = now, False
                    self._received(message)
                elif now - heard > 2 * _SILENCE_SECONDS:
                    raise TimeoutError("Redis does not answer.")
                elif now - heard > _SILENCE_SECONDS and not asked:
                    asked = True
                    await pubsub.ping()
        finally:
            with suppress(*REDIS_ERRORS):
                await pubsub.aclose()  # type: ignore[no-untyped-call]  # the library's

    async def _follow_handlers(self, pubsub: PubSub) -> None:
        """Subscribe to what is listened to. Done by the one task that reads, never beside it."""
        wanted = {_ALIVE, *self._handlers}
        if new := wanted - self._subscribed:
            await pubsub.subscribe(*(self._prefix + channel for channel in new))
        if old := self._subscribed - wanted:
            await pubsub.unsubscribe(*(self._prefix + channel for channel in old))
        self._subscribed = wanted

    def _received(self, message: dict[str, object]) -> None:
        if message["type"] == "pong" and not self._up:
            self._connected()
        if message["type"] != "message":
            return
        channel, data = message["channel"], message["data"]
        if not isinstance(channel, bytes) or not isinstance(data, bytes):
            return
        for handler in list(self._handlers.get(channel.decode().removeprefix(self._prefix), ())):
            handler(data)

    def _connected(self) -> None:
        self._up = True
        if self._away_since is not None:
            _log.info("redis.back", seconds=round(time.monotonic() - self._away_since, 1))
            self._away_since = None
        for told in self._on_connect:
            told()

    def _lost(self, detail: str) -> None:
        self._up = False
        if self._away_since is None:
            self._away_since = time.monotonic()
            _log.warning("redis.away", detail=detail)
