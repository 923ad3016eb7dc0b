"""One execution followed for all who watch it at this gateway, whatever happens behind it.

It is followed at a generator, which adds live estimates. Where that stream breaks off, it is followed at storage from the
last revision, unseen by watchers, and at a generator again as soon as one is connected. Every switch resumes from the
highest revision heard, and what is not above it is dropped: there is no gap and no repeat. Nobody is polled; the gateway
is told when a generator is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from functools import partial

import structlog

from nanobatch_gateway.domain import SourceLostError, Update, WatchMessage, WatchMovedError
from nanobatch_gateway.ports import Changes, Presence
from nanobatch_runtime.backoff import full_jitter
from nanobatch_runtime.errors import Kind, NanobatchError, RemoteError
from nanobatch_runtime.lifecycle import cancel
from nanobatch_runtime.replica import Replica

_log = structlog.get_logger("nanobatch.gateway")

# A stream that was ended by its server after at least this long was renewed, not lost.
_RENEWED_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """How patient a watch is."""

    meet: timedelta = timedelta(milliseconds=250)
    """How long a new feed waits for a generator's connection before it begins at storage."""
    both_down: timedelta = timedelta(seconds=30)
    """How long it goes on trying while neither generator nor storage gives anything."""
    first_wait: timedelta = timedelta(milliseconds=100)
    """First wait between two tries."""
    longest_wait: timedelta = timedelta(seconds=3)
    """Longest wait between two tries."""
    linger: timedelta = timedelta(seconds=2)
    """How long a feed stays after its last watcher: a page that reloads finds it warm."""

    def wait_after(self, failures: int) -> float:
        """Return the seconds before the next try."""
        return full_jitter(failures, base=self.first_wait, cap=self.longest_wait).total_seconds()


class Feed:
    """Follows one execution and keeps its replica."""

    def __init__(
        self, execution_id: str, *, generator: Changes, storage: Changes, presence: Presence, limits: WatchLimits
    ) -> None:
        """Nothing is followed before :meth:`run`."""
        self.execution_id = execution_id
        self.replica: Replica[Update] = Replica(WatchMessage.with_stats)
        self._generator = generator
        self._storage = storage
        self._presence = presence
        self._limits = limits
        self._lost_at: float | None = None

    async def run(self, draining: asyncio.Event) -> None:
        """Follow until the execution has ended, or nobody can tell of it any more; the replica ends with it."""
        moved = "This gateway does not follow this execution any longer; watch again."
        drained = asyncio.create_task(_wait(draining), name="watch-drained")
        try:
            await self._relay(drained)
            self.replica.end()
        except NanobatchError as error:
            self.replica.end(partial(_again, error))
        except Exception:  # noqa: BLE001  # a bug here ends these watches, not the process
            _log.exception("watch.failed", execution=self.execution_id)
            moved = "Something went wrong on our side; watch again."
        finally:
            self.replica.end(partial(WatchMovedError, moved))
            await cancel(drained)

    async def _relay(self, drained: asyncio.Task[None]) -> None:
        losses = misses = 0  # of generator and storage in a row, without anything new between
        at_generator = await self._meet()
        back = asyncio.create_task(self._generator_back(losses), name="watch-generator-back")
        try:
            while not drained.done():
                before = self.replica.revision
                if at_generator:
                    end = await self._follow(self._generator, drained)
                    if end is _End.LOST:
                        losses = 1 if self.replica.revision > before else losses + 1
                        at_generator = False
                        await cancel(back)
                        back = asyncio.create_task(self._generator_back(losses), name="watch-generator-back")
                else:
                    end = await self._follow(self._storage, drained, back)
                    if end is _End.LOST:
                        misses = 1 if self.replica.revision > before else misses + 1
                        await self._look_around(misses, drained, back)
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
            await asyncio.sleep(self._limits.wait_after(losses))
        await self._presence.wait()

    async def _look_around(self, misses: int, drained: asyncio.Task[None], back: asyncio.Task[None]) -> None:
        """Wait before storage is tried again, unless a generator comes first. Raises WatchMovedError after too long."""
        now = asyncio.get_running_loop().time()
        if self._lost_at is not None and now - self._lost_at > self._limits.both_down.total_seconds():
            raise WatchMovedError("Neither a generator nor storage can be reached; watch again in a moment.")
        wait = self._limits.wait_after(misses)
        await asyncio.wait({drained, back}, timeout=wait, return_when=asyncio.FIRST_COMPLETED)

    async def _follow(self, source: Changes, *interrupts: asyncio.Task[None]) -> _End:
        """Take over what ``source`` says until it ends, breaks off, or one of ``interrupts`` is done."""
        opened = asyncio.get_running_loop().time()
        self.replica.forget_notice()  # a source says itself why an execution waits
        try:
            async with source.follow(self.execution_id, self.replica.revision) as updates:
                while not any(task.done() for task in interrupts):
                    update = await _next_unless(updates, interrupts)
                    self._lost_at = None
                    if isinstance(update, _End):
                        return update
                    self.replica.apply(update)
        except SourceLostError as error:
            now = asyncio.get_running_loop().time()
            if error.reason == WatchMovedError.reason and now - opened > _RENEWED_SECONDS:
                return _End.RENEWED
            # A silent stream that was open for as long as this was a good one all the same.
            if self._lost_at is None or now - opened > self._limits.both_down.total_seconds():
                self._lost_at = now
            _log.info(
                "watch.source_lost", execution=self.execution_id, revision=self.replica.revision, cause=error.reason
            )
            return _End.LOST
        return _End.INTERRUPTED


class _End(Enum):
    """How following one source ended."""

    ENDED = auto()
    LOST = auto()
    RENEWED = auto()
    INTERRUPTED = auto()


def _again(error: NanobatchError, *, metadata: Mapping[str, str]) -> NanobatchError:
    """Return the error for one watcher. From a revision that was never given out nobody can resume: it names its own."""
    own = error.kind is Kind.OUT_OF_RANGE and "revision" in error.metadata
    facts = {**metadata, **error.metadata} if own else {**error.metadata, **metadata}
    return RemoteError(error.kind, error.message, reason=error.reason, metadata=facts)


async def _next_unless(updates: AsyncIterator[Update], interrupts: tuple[asyncio.Task[None], ...]) -> Update | _End:
    """Return the next update, or how the stream ended; INTERRUPTED when one of ``interrupts`` is done first."""
    reading = asyncio.create_task(_next(updates))
    try:
        await asyncio.wait({reading, *interrupts}, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            return _End.INTERRUPTED
        return reading.result() or _End.ENDED
    finally:
        await cancel(reading)  # though it be done: whoever is cancelled meanwhile takes its error along


async def _next(updates: AsyncIterator[Update]) -> Update | None:
    return await anext(updates, None)


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
