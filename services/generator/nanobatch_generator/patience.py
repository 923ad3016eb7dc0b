"""Waiting for storage to come back, or for room on the disk. What is waited with can be repeated at no cost."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

import structlog

from nanobatch_generator.domain import StorageDownError
from nanobatch_runtime.backoff import full_jitter

T = TypeVar("T")

_log = structlog.get_logger("nanobatch.patience")

_FULL = {errno.ENOSPC, errno.EDQUOT}

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


async def until_met(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat ``call`` until storage answers for the first time, and say once for each reason why it does not."""
    failures, said = 0, ""
    while True:
        try:
            answer = await call()
        except StorageDownError as error:
            failures += 1
            if error.reason != said:
                said = error.reason
                _log.warning("storage.unreachable", reason=error.reason, detail=error.message)
            await pause(failures)
        else:
            if failures:
                _log.info("storage.reached", failures=failures)
            return answer


async def with_room(write: Callable[[], Awaitable[T]]) -> T:
    """Repeat ``write`` until the disk has room for it: what is written is paid for. Raises any other OSError."""
    failures = 0
    while True:
        try:
            return await write()
        except OSError as error:
            if error.errno not in _FULL:
                raise
            failures += 1
            if failures == 1:
                _log.error("spool.full", detail=error.strerror)  # the folder's disk; no trace needed
            await pause(failures)
