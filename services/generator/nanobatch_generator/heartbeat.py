"""Keeps leases alive from a thread with a channel of its own.

On the loop it would stop with the loop: one prompt in a hundred that blocks it for longer than a lease, and the queue
pays for the same pictures again and again (reliability.md 0.5).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import structlog

from nanobatch_generator.domain import LeaseRef, StorageDownError
from nanobatch_generator.ports import LeaseExtender

_log = structlog.get_logger("nanobatch.heartbeat")

_RETRY_SECONDS = 1.0
_SHORTEST_TIMEOUT = 0.5
_PARTS_OF_A_LEASE = 3


class Heartbeat:
    """Extends all held leases every third of a lease, whatever the loop does."""

    def __init__(self, extender: LeaseExtender) -> None:
        """``extender`` is closed by :meth:`run`."""
        self._extender = extender
        self._wake = threading.Condition()
        self._held: dict[LeaseRef, float] = {}
        self._next = 0.0
        self._stopping = False
        self._down = False

    def hold(self, ref: LeaseRef, duration: timedelta) -> None:
        """Keep this lease from now on."""
        interval = duration.total_seconds() / _PARTS_OF_A_LEASE
        with self._wake:
            due = time.monotonic() + interval
            self._next = min(self._next, due) if self._held else due
            self._held[ref] = interval
            self._wake.notify()

    def drop(self, ref: LeaseRef) -> None:
        """Keep it no longer."""
        with self._wake:
            self._held.pop(ref, None)

    async def run(self, on_lost: Callable[[LeaseRef], None]) -> None:
        """Beat until cancelled. ``on_lost`` is called on the loop. Raises what kills the thread: a heart may not die unseen."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def beat() -> None:
            try:
                self._beat(lambda ref: _on(loop, lambda: on_lost(ref)))
            except Exception as error:  # noqa: BLE001  # carried over to the loop, which ends the process
                _on(loop, partial(_settle, ended, error))
            else:
                _on(loop, partial(_settle, ended, None))

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            await asyncio.shield(ended)
        finally:
            with self._wake:
                self._stopping = True
                self._wake.notify()
            self._extender.close()
            await asyncio.to_thread(thread.join, 10.0)

    def _beat(self, lost: Callable[[LeaseRef], None]) -> None:
        while (due := self._wait()) is not None:
            refs, interval = due
            started = time.monotonic()
            try:
                gone = self._extender.extend(refs, timedelta(seconds=max(_SHORTEST_TIMEOUT, interval / 2)))
            except StorageDownError as error:
                self._say(down=True, reason=error.message)
                self._again(started + min(interval, _RETRY_SECONDS))
                continue
            except Exception:
                if self._stopping:  # the channel was closed under the call
                    return
                raise
            self._say(down=False)
            self._again(started + interval)
            for ref in gone:
                self.drop(ref)
                lost(ref)

    def _wait(self) -> tuple[list[LeaseRef], float] | None:
        with self._wake:
            while not self._stopping:
                left = self._next - time.monotonic()
                if self._held and left <= 0:
                    return list(self._held), min(self._held.values())
                self._wake.wait(left if self._held else None)
        return None

    def _again(self, at: float) -> None:
        with self._wake:
            self._next = at

    def _say(self, *, down: bool, reason: str = "") -> None:
        if down and not self._down and not self._stopping:
            _log.warning("heartbeat.unanswered", reason=reason)
        elif self._down and not down:
            _log.info("heartbeat.answered")
        self._down = down


def _settle(ended: asyncio.Future[None], error: Exception | None) -> None:
    if ended.done():
        return
    if error is None:
        ended.set_result(None)
    else:
        ended.set_exception(error)


def _on(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:  # the loop has closed: nobody is left to be told
        _log.debug("heartbeat.loop_closed")
