"""What a bus of hints promises."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Protocol


class Subscription(Protocol):
    """One listener's ear. Hints that come while nobody waits are kept as one."""

    @property
    def heard_at(self) -> float:
        """When the hint that the last :meth:`wait` told of had come, in seconds since 1970; 0 before any."""
        ...

    async def wait(self, timeout: timedelta) -> bool:
        """Return True at the first hint since the last call (at once if there was one), False after ``timeout``."""
        ...


class Bus(Protocol):
    """Carries hints on named topics to all who listen. At most once, unordered, without content."""

    async def publish(self, topic: str) -> None:
        """Wake the listeners of ``topic``. Never fails and never waits for them."""
        ...

    def subscribe(self, topic: str) -> AbstractAsyncContextManager[Subscription]:
        """Listen to ``topic`` while the context is open."""
        ...
