"""Waiting for storage to come back. Every write to it is idempotent, so a repeat costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from nanobatch_generator.domain import StorageDownError
from nanobatch_runtime.backoff import full_jitter

T = TypeVar("T")

_BASE = timedelta(seconds=0.2)
_CAP = timedelta(seconds=5)
_LEAST = 0.02


async def pause(failures: int) -> None:
    """Wait before the next try, longer after each failure (0.2 s doubling to 5 s, full jitter)."""
    await asyncio.sleep(max(_LEAST, full_jitter(failures, base=_BASE, cap=_CAP).total_seconds()))


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat ``call`` until storage answers. It ends by itself in no other way: the fence or our cancellation ends it."""
    failures = 0
    while True:
        try:
            return await call()
        except StorageDownError:
            failures += 1
            await pause(failures)
