"""Who asks for leave to call when the bucket's provider allows a pace: first come, first served, and few at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

_MOST = 8


class Turn:
    """How many of a bucket ask at a time: one more with each leave that was given, one alone after being put off.

    While leaves are given, their round trips overlap; while the pace puts calls off, asking more often would gain nothing.
    """

    def __init__(self) -> None:
        """Begin with one."""
        self._places = asyncio.Semaphore(1)
        self._limit = 1
        self._surplus = 0
        """So many of those who are in now go without letting another in."""

    def given(self) -> None:
        """Note that a leave was given."""
        if self._limit >= _MOST:
            return
        self._limit += 1
        if self._surplus:
            self._surplus -= 1
        else:
            self._places.release()

    def put_off(self) -> None:
        """Note that somebody has to wait for the pace."""
        self._surplus += self._limit - 1
        self._limit = 1

    async def enter(self) -> None:
        """Wait for a place."""
        await self._places.acquire()

    def leave(self) -> None:
        """Give it back."""
        if self._surplus:
            self._surplus -= 1
        else:
            self._places.release()


class Turns:
    """The results whose leave has to be asked for one after the other, by bucket."""

    def __init__(self) -> None:
        """Start with none."""
        self._turns: dict[str, Turn] = {}
        self._users: Counter[str] = Counter()

    def are_kept(self, bucket_id: str) -> bool:
        """Whether somebody waits for leave: whoever comes now is behind."""
        return bucket_id in self._turns

    @asynccontextmanager
    async def turn(self, bucket_id: str) -> AsyncGenerator[Turn]:
        """Wait for one's turn, and have it while the context is open."""
        turn = self._turns.setdefault(bucket_id, Turn())
        self._users[bucket_id] += 1
        try:
            await turn.enter()
            try:
                yield turn
            finally:
                turn.leave()
        finally:
            self._users[bucket_id] -= 1
            if not self._users[bucket_id]:
                del self._users[bucket_id], self._turns[bucket_id]
