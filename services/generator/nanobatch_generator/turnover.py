"""The next call first, then the picture of the last one.

What takes time is the provider's call, and while a slot is empty none is made. So where more work waits than there are slots, a
picture whose call has ended lets the next call begin before it is decoded and handed over; for a moment only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import timedelta

_PATIENCE = timedelta(seconds=0.15)


class Turnover:
    """Pictures that give way to calls, first come, first served."""

    def __init__(self, patience: timedelta = _PATIENCE) -> None:
        """A picture waits for ``patience`` at most."""
        self._patience = patience.total_seconds()
        self._more = False
        self._pictures: deque[asyncio.Future[None]] = deque()

    def polled(self, asked: int, got: int) -> None:
        """Note an answer of the queue: where it gave less than was asked for, there is no more, and nothing to wait for."""
        self._more = got >= asked
        if not self._more:
            while self._pictures:
                self.begun()

    def begun(self) -> None:
        """Note that a call has begun: the next picture may go on."""
        while self._pictures:
            picture = self._pictures.popleft()
            if not picture.done():
                picture.set_result(None)
                return

    async def next_call(self) -> None:
        """Wait until another call has begun, as far as one is to be expected."""
        if not self._more:
            return
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pictures.append(begun)
        try:
            await asyncio.wait([begun], timeout=self._patience)
        finally:
            begun.cancel()  # begun() passes it by
