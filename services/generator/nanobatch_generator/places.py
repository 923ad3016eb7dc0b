"""Who begins when a call ends: results that were leased ahead of their bucket's window stand by here.

Storage decides how many calls of a bucket may be out, over all generators. What is gained here is time: the place of a
call that has ended in this process goes to one that is ready, in one transaction, instead of to a lease that is yet to
be asked for.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from datetime import timedelta

from nanobatch_generator.domain import EndedCall


class Places:
    """The results that stand by, by bucket, first come, first served."""

    def __init__(self) -> None:
        """Start with none."""
        self._waiting: defaultdict[str, deque[asyncio.Future[EndedCall | None]]] = defaultdict(deque)

    def hand_over(self, bucket_id: str, ended: EndedCall | None) -> bool:
        """Wake the next that stands by; returns whether there was one. ``ended``: whose place it takes, if not told yet."""
        queue = self._waiting[bucket_id]
        while queue:
            waiter = queue.popleft()
            if not waiter.done():
                waiter.set_result(ended)
                return True
        del self._waiting[bucket_id]
        return False

    async def wait(self, bucket_id: str, patience: timedelta) -> EndedCall | None:
        """Wait until a call of the bucket ends here, or ``patience`` is over: one may have ended elsewhere."""
        waiter: asyncio.Future[EndedCall | None] = asyncio.get_running_loop().create_future()
        self._waiting[bucket_id].append(waiter)
        try:
            await asyncio.wait([waiter], timeout=patience.total_seconds())
        except asyncio.CancelledError:
            if waiter.done():
                self.hand_over(bucket_id, waiter.result())  # the next one takes it
            waiter.cancel()
            raise
        if waiter.done():
            return waiter.result()
        waiter.cancel()  # hand_over passes it by
        return None
