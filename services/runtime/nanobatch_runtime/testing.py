"""Waiting in tests: for a condition, never for a time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(probe: Callable[[], T | Awaitable[T]], *, within: float = 10.0) -> T:
    """Call ``probe`` until it returns something true (then returned) or ``within`` seconds are over (AssertionError).

    An AssertionError of the probe itself counts as "not yet", and is shown when time is up.
    """
    deadline = time.monotonic() + within
    last: AssertionError | None = None
    while True:
        try:
            value = probe()
            found: T = await value if inspect.isawaitable(value) else value
            if found:
                return found
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            message = f"not within {within} s: {last or getattr(probe, '__name__', probe)}"
            raise AssertionError(message)
        await asyncio.sleep(0.02)
