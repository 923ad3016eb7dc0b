"""Time as a dependency."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Says what time it is."""

    def now(self) -> datetime:
        """Return the time, always in UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """See :class:`Clock`."""
        return datetime.now(UTC)


class ManualClock:
    """A clock that stands still until it is moved, for tests."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        """Stand at ``start``."""
        self._now = start

    def now(self) -> datetime:
        """See :class:`Clock`."""
        return self._now

    def advance(self, by: timedelta) -> None:
        """Move forward."""
        self._now += by
