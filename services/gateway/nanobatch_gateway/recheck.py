"""A stream lasts no longer than its caller's right to it, over whichever door it came."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from nanobatch_runtime.errors import Kind, NanobatchError

RECHECK = timedelta(seconds=10)
"""With what is remembered of a token (10 s) a revoked one ends its streams within 20 s, and the time of a question."""

_REFUSED = frozenset({Kind.UNAUTHENTICATED, Kind.PERMISSION_DENIED})


async def until_refused(recheck: Callable[[], Awaitable[None]], every: timedelta) -> None:
    """Ask ``recheck`` again and again; raises what it raises when the caller may not go on.

    That storage cannot be asked ends nothing: nobody has said then that the caller may not go on.
    """
    while True:
        await asyncio.sleep(every.total_seconds())
        try:
            await recheck()
        except NanobatchError as error:
            if error.kind in _REFUSED:
                raise
