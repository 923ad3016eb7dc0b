"""Whether the database's clock and this machine's go together.

Leases and waiting go by the database's clock alone. Where that is set back by an hour, what a dead generator held comes back
an hour late, and nothing else tells why.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import structlog

from nanobatch_runtime.clock import Clock
from nanobatch_runtime.metrics import CLOCK_OFFSET

_log = structlog.get_logger("nanobatch.clocks")

TOGETHER = timedelta(seconds=5)
"""Clocks that are no further apart go together; a look takes a round trip to the database besides."""
_TOGETHER_AGAIN = timedelta(seconds=4)
"""Those that came apart do so from here on: what wavers about the limit is told once."""


class Clocks:
    """What the last look at both clocks showed."""

    def __init__(self, theirs: Callable[[], Awaitable[datetime]], ours: Clock) -> None:
        """``theirs`` asks the database for its time; ``ours`` is the machine's."""
        self._theirs = theirs
        self._ours = ours
        self._offset = timedelta()
        self._told: timedelta | None = None
        """By how much they were apart when that was told last; None while they go together."""

    async def look(self) -> None:
        """Look anew, and say when they have come apart, when that becomes twice as much, and when they go together again."""
        self._offset = offset = await self._theirs() - self._ours.now()
        if abs(offset) > (TOGETHER if self._told is None else 2 * abs(self._told)):
            self._told = offset
            _log.warning("clocks.apart", database_ahead_seconds=round(offset.total_seconds(), 1))
        elif self._told is not None and abs(offset) <= _TOGETHER_AGAIN:
            self._told = None
            _log.info("clocks.together")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the last look while the context is open."""
        with CLOCK_OFFSET.of(lambda: {(): self._offset.total_seconds()}):
            yield
