"""WatchExecution: one unbroken stream to the client, whatever happens behind the gateway.

An execution is followed at a generator, which adds live estimates. Where that stream breaks off, it is followed at
storage from the last revision, unseen by the client, and at a generator again as soon as one is connected. Every switch
resumes from the highest revision sent, and what is not above it is dropped: there is no gap and no repeat. Nobody is
polled; the gateway is told when a generator is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto

import structlog

from nanobatch_gateway.domain import (
    Caller,
    Message,
    ReaderTooSlowError,
    SourceLostError,
    Update,
    WatcherTooSlowError,
    WatchMovedError,
)
from nanobatch_gateway.ports import Changes, Presence
from nanobatch_runtime.backoff import full_jitter
from nanobatch_runtime.errors import Kind, NanobatchError
from nanobatch_runtime.lifecycle import cancel

_log = structlog.get_logger("nanobatch.gateway")

Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """How patient a watch is."""

    meet: timedelta = timedelta(milliseconds=250)
    """How long a new watch waits for a generator's connection before it begins at storage."""
    both_down: timedelta = timedelta(seconds=30)
    """How long it goes on trying while neither generator nor storage gives anything."""
    first_wait: timedelta = timedelta(milliseconds=100)
    """First wait between two tries."""
    longest_wait: timedelta = timedelta(seconds=3)
    """Longest wait between two tries."""


class WatchExecution:
    """Follows executions for clients."""

    def __init__(
        self,
        *,
        generator: Changes,
        storage: Changes,
        presence: Presence,
        draining: asyncio.Event,
        limits: WatchLimits | None = None,
    ) -> None:
        """``draining`` is set when this server ends; every watch then ends resumably."""
        self._generator = generator
        self._storage = storage
        self._presence = presence
        self._draining = draining
        self._limits = limits or WatchLimits()

    async def __call__(self, caller: Caller, execution_id: str, after_revision: int, send: Send) -> None:
        """Send every change after a revision, in ascending order; return when the execution has ended.

        Every error carries the metadata ``revision`` to resume from: WatchMovedError, WatcherTooSlowError, and what
        generator or storage say about the execution itself. ``send`` raises ReaderTooSlowError.
        """
        lived = self._limits.both_down.total_seconds()
        follower = _Follower(caller, execution_id, after_revision, send, lived)
        drained = asyncio.create_task(_wait(self._draining), name="watch-drained")
        try:
            await self._relay(follower, drained)
        except ReaderTooSlowError as error:
            raise WatcherTooSlowError(error.message, metadata=follower.position) from None
        except NanobatchError as error:
            # From a revision that was never given out nobody can resume: that answer names the highest one itself.
            if error.kind is not Kind.OUT_OF_RANGE or "revision" not in error.metadata:
                error.metadata = {**error.metadata, **follower.position}
            raise
        finally:
            await cancel(drained)

    async def _relay(self, follower: _Follower, drained: asyncio.Task[None]) -> None:
        losses = misses = 0  # of generator and storage in a row, without anything new between
        at_generator = await self._meet()
        back = asyncio.create_task(self._generator_back(losses), name="watch-generator-back")
        try:
            while not drained.done():
                before = follower.revision
                if at_generator:
                    end = await follower.follow(self._generator, drained)
                    if end is _End.LOST:
                        losses = 1 if follower.revision > before else losses + 1
                        at_generator = False
                        await cancel(back)
                        back = asyncio.create_task(self._generator_back(losses), name="watch-generator-back")
                else:
                    end = await follower.follow(self._storage, drained, back)
                    if end is _End.LOST:
                        misses = 1 if follower.revision > before else misses + 1
                        await self._look_around(follower, misses, drained, back)
                    at_generator = back.done()
                if end is _End.ENDED:
                    return
        finally:
            await cancel(back)
        raise WatchMovedError("This gateway is shutting down; watch again, another one takes over.")

    async def _meet(self) -> bool:
        """Give a generator's connection a moment, and say whether it is there."""
        try:
            async with asyncio.timeout(self._limits.meet.total_seconds()):
                await self._presence.wait()
        except TimeoutError:
            return False
        return True

    async def _generator_back(self, losses: int) -> None:
        """Wait until a generator is connected; longer, the more often its stream was lost although it was."""
        if losses:
            await asyncio.sleep(self._wait_after(losses))
        await self._presence.wait()

    async def _look_around(
        self, follower: _Follower, misses: int, drained: asyncio.Task[None], back: asyncio.Task[None]
    ) -> None:
        """Wait before storage is tried again, unless a generator comes first. Raises WatchMovedError after too long."""
        if follower.silence() > self._limits.both_down.total_seconds():
            raise WatchMovedError("Neither a generator nor storage can be reached; watch again in a moment.")
        await asyncio.wait({drained, back}, timeout=self._wait_after(misses), return_when=asyncio.FIRST_COMPLETED)

    def _wait_after(self, failures: int) -> float:
        return full_jitter(failures, base=self._limits.first_wait, cap=self._limits.longest_wait).total_seconds()


class _End(Enum):
    """How following one source ended."""

    ENDED = auto()
    LOST = auto()
    INTERRUPTED = auto()


class _Follower:
    """Where one client stands, and since when nothing could be heard for it."""

    def __init__(self, caller: Caller, execution_id: str, revision: int, send: Send, lived: float) -> None:
        """``lived`` is for how many seconds a silent stream must have been open to count as a good one."""
        self.revision = revision
        self._caller = caller
        self._execution_id = execution_id
        self._send = send
        self._lived = lived
        self._lost_at: float | None = None

    @property
    def position(self) -> dict[str, str]:
        """What to resume from, as error metadata."""
        return {"revision": str(self.revision)}

    def silence(self) -> float:
        """Return for how many seconds no source could be followed."""
        return 0.0 if self._lost_at is None else asyncio.get_running_loop().time() - self._lost_at

    async def follow(self, source: Changes, *interrupts: asyncio.Task[None]) -> _End:
        """Hand on what ``source`` says until it ends, breaks off, or one of ``interrupts`` is done."""
        opened = asyncio.get_running_loop().time()
        try:
            async with source.follow(self._caller, self._execution_id, self.revision) as updates:
                while not any(task.done() for task in interrupts):
                    update = await _next_unless(updates, interrupts)
                    self._lost_at = None
                    if isinstance(update, _End):
                        return update
                    await self._hand_on(update)
        except SourceLostError as error:
            now = asyncio.get_running_loop().time()
            if self._lost_at is None or now - opened > self._lived:
                self._lost_at = now
            _log.info("watch.source_lost", execution=self._execution_id, revision=self.revision, cause=error.reason)
            return _End.LOST
        return _End.INTERRUPTED

    async def _hand_on(self, update: Update) -> None:
        if update.revision and update.revision <= self.revision:
            return  # sent already, by the source before
        await self._send(update.message)
        self.revision = max(self.revision, update.revision)


async def _next_unless(updates: AsyncIterator[Update], interrupts: tuple[asyncio.Task[None], ...]) -> Update | _End:
    """Return the next update, or how the stream ended; INTERRUPTED when one of ``interrupts`` is done first."""
    reading = asyncio.create_task(_next(updates))
    try:
        await asyncio.wait({reading, *interrupts}, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            return _End.INTERRUPTED
        return reading.result() or _End.ENDED
    finally:
        if not reading.done():
            await cancel(reading)


async def _next(updates: AsyncIterator[Update]) -> Update | None:
    return await anext(updates, None)


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
