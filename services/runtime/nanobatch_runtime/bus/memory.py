"""The bus of one process."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta


class MemorySubscription:
    """An event that remembers one hint."""

    def __init__(self) -> None:
        """Start without a hint."""
        self._event = asyncio.Event()
        self._first_at = 0.0
        self.heard_at = 0.0
        """See :class:`nanobatch_runtime.bus.port.Subscription`."""

    def wake(self) -> None:
        """Note a hint."""
        if not self._event.is_set():
            self._first_at = time.time()
            self._event.set()

    async def wait(self, timeout: timedelta) -> bool:
        """See :class:`nanobatch_runtime.bus.port.Subscription`."""
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        self.heard_at = self._first_at
        return True


class MemoryBus:
    """Hints by direct call: for the embedded mode and for tests."""

    def __init__(self) -> None:
        """Start without listeners."""
        self._listeners: defaultdict[str, set[MemorySubscription]] = defaultdict(set)

    async def publish(self, topic: str) -> None:
        """See :class:`nanobatch_runtime.bus.port.Bus`."""
        self.wake(topic)

    def wake(self, topic: str) -> None:
        """Wake the listeners of ``topic``."""
        for listener in self._listeners.get(topic, ()):
            listener.wake()

    def wake_all(self) -> None:
        """Wake all listeners: something may have been missed."""
        for topic in self._listeners:
            self.wake(topic)

    @asynccontextmanager
    async def subscribe(self, topic: str) -> AsyncIterator[MemorySubscription]:
        """See :class:`nanobatch_runtime.bus.port.Bus`."""
        listener = MemorySubscription()
        self._listeners[topic].add(listener)
        try:
            yield listener
        finally:
            self._listeners[topic].discard(listener)
            if not self._listeners[topic]:
                del self._listeners[topic]
