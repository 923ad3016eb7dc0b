"""Processes that end in order, and tasks that somebody owns."""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import structlog

_log = structlog.get_logger("nanobatch.lifecycle")


async def wait_for_signal() -> str:
    """Return the name of the first SIGTERM or SIGINT of this process. A second one ends the process at once."""
    loop = asyncio.get_running_loop()
    received: asyncio.Future[str] = loop.create_future()

    def handle(name: str) -> None:
        if received.done():
            for which in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(which)
            signal.raise_signal(signal.SIGTERM)
        else:
            received.set_result(name)

    for which in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(which, handle, which.name)
    return await received


async def cancel(task: asyncio.Task[object]) -> None:
    """Cancel a task of ours and wait until it has ended; what it raises then is not of interest any more."""
    task.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await task


def check_cancelled() -> None:
    """Raise CancelledError where the current task was cancelled and a library has swallowed it.

    ``asyncio.wait_for`` does so up to Python 3.11 when what it waits for ends in the same moment
    (python/cpython#86296), and redis-py sends through it. Loops around such calls would go on for ever.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def settle_garbage_collector() -> None:
    """Keep what a started process is made of out of every later collection, and collect less often.

    A server makes many short-lived objects and few cycles; the default looks at all of them every 700.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


class LoopLag:
    """Measures how long the event loop was blocked lately.

    Where storage shares its loop with everything else (embedded mode), heartbeats cannot arrive while the loop is
    blocked; a lease is not counted as expired within that time.
    """

    def __init__(
        self, *, tick: timedelta = timedelta(milliseconds=250), memory: timedelta = timedelta(seconds=30)
    ) -> None:
        """Look every ``tick``, and remember a lag for ``memory``."""
        self._tick = tick.total_seconds()
        self._memory = memory.total_seconds()
        self._last = time.monotonic()
        self._worst: tuple[float, float] = (0.0, self._last)

    def recent(self) -> timedelta:
        """Return the worst lag within the memory, the one that is just ending included."""
        now = time.monotonic()
        running = max(0.0, now - self._last - self._tick)
        worst, seen = self._worst
        if now - seen > self._memory:
            worst = 0.0
        return timedelta(seconds=max(running, worst))

    @asynccontextmanager
    async def measuring(self) -> AsyncIterator[LoopLag]:
        """Measure while the context is open."""
        task = asyncio.create_task(self._run(), name="loop-lag")
        try:
            yield self
        finally:
            await cancel(task)

    async def _run(self) -> None:
        self._last = time.monotonic()
        while True:
            await asyncio.sleep(self._tick)
            now = time.monotonic()
            lag = now - self._last - self._tick
            worst, seen = self._worst
            if lag >= worst or now - seen > self._memory:
                self._worst = (max(lag, 0.0), now)
            if lag > 1:
                _log.warning("loop.blocked", seconds=round(lag, 2))
            self._last = now
