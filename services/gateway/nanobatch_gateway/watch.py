"""WatchExecution: one unbroken stream to each client, from one feed per execution, however many watch it here."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from contextvars import Context
from datetime import timedelta
from functools import partial

from nanobatch_gateway.domain import (
    Caller,
    ReaderTooSlowError,
    RevisionUnknownError,
    StorageUnavailableError,
    WatcherTooSlowError,
    WatchMessage,
    WatchMovedError,
)
from nanobatch_gateway.feed import Feed, WatchLimits
from nanobatch_gateway.ports import Changes, Executions, Presence
from nanobatch_runtime.errors import NanobatchError
from nanobatch_runtime.lifecycle import cancel
from nanobatch_runtime.metrics import EVENT_LAG, WATCHERS

Send = Callable[[WatchMessage], Awaitable[None]]

_SHUTTING_DOWN = "This gateway is shutting down; watch again, another one takes over."
_long_enough = partial(WatchMovedError, "This watch has lasted for long; watch on from the revision given.")


class WatchExecution:
    """Lets watchers in, each checked for itself, and owns the feeds. Close it after the last one."""

    def __init__(
        self,
        *,
        executions: Executions,
        generator: Changes,
        storage: Changes,
        presence: Presence,
        draining: asyncio.Event,
        lasting: timedelta = timedelta(minutes=30),
        limits: WatchLimits | None = None,
    ) -> None:
        """``draining`` is set when this server ends; every watch then ends resumably. So it does after ``lasting``.

        The server's connections must outlive ``lasting``: a stream that is cut with its connection names no revision.
        """
        self._executions = executions
        self._draining = draining
        self._lasting = lasting
        self._limits = limits or WatchLimits()
        self._new_feed = partial(Feed, generator=generator, storage=storage, presence=presence, limits=self._limits)
        self._feeds: dict[str, tuple[Feed, asyncio.Task[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, caller: Caller, execution_id: str, after_revision: int, send: Send) -> None:
        """Send every change after a revision, in ascending order; return when the execution has ended.

        Every error carries the metadata ``revision`` to resume from: WatchMovedError, WatcherTooSlowError, and what
        storage says about the execution itself (NOT_FOUND, RevisionUnknownError). ``send`` raises ReaderTooSlowError.
        """
        known = await self._let_in(caller, execution_id, after_revision)
        feed, seen = self._feed(execution_id, known), after_revision
        # Some earlier than others: those who came together need not come back together.
        lasting = self._lasting * random.uniform(0.9, 1)  # noqa: S311  # spreads load, guards nothing
        try:
            with WATCHERS.track_inprogress():
                async with aclosing(
                    feed.replica.watch(after_revision, lasting=lasting, moved=_long_enough)
                ) as messages:
                    async for message in messages:
                        await send(message)
                        seen = max(seen, message.revision)
                        if message.changed_at and message.revision > known:  # what was there before is no news
                            EVENT_LAG.observe(max(0.0, time.time() - message.changed_at))
        except ReaderTooSlowError as error:
            raise WatcherTooSlowError(error.message, metadata={"revision": str(seen)}) from None
        finally:
            if not feed.replica.watched:
                linger = self._limits.linger.total_seconds()
                asyncio.get_running_loop().call_later(linger, self._close_unwatched, feed)

    async def close(self) -> None:
        """End all feeds."""
        for task in list(self._tasks):
            await cancel(task)

    async def _let_in(self, caller: Caller, execution_id: str, after_revision: int) -> int:
        """Return the execution's revision if the caller may see it and theirs exists; storage may be away a while."""
        metadata = {"revision": str(after_revision)}
        failures, began = 0, asyncio.get_running_loop().time()
        while not self._draining.is_set():
            try:
                known = (await self._executions.get(caller, execution_id)).revision
            except StorageUnavailableError:
                failures += 1
                if asyncio.get_running_loop().time() - began > self._limits.both_down.total_seconds():
                    message = "Storage cannot be reached; watch again in a moment."
                    raise WatchMovedError(message, metadata=metadata) from None
                await asyncio.sleep(self._limits.wait_after(failures))
            except NanobatchError as error:
                error.metadata = {**error.metadata, **metadata}
                raise
            else:
                if after_revision > known:
                    message = f"Revision {after_revision} was never given out; the highest one is {known}."
                    raise RevisionUnknownError(message, metadata={"revision": str(known)})
                return known
        raise WatchMovedError(_SHUTTING_DOWN, metadata=metadata)

    def _feed(self, execution_id: str, known: int) -> Feed:
        found = self._feeds.get(execution_id)
        if found is not None:
            replica = found[0].replica
            # A complete one still serves those who come after the end, unless the execution was reopened meanwhile.
            if not replica.ended or (replica.complete and replica.revision >= known):
                return found[0]
        feed = self._new_feed(execution_id)
        # In a context of its own: the first watcher's deadline is not the feed's.
        task = asyncio.get_running_loop().create_task(
            feed.run(self._draining), name=f"watch-{execution_id}", context=Context()
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._forget_later(feed))
        self._feeds[execution_id] = feed, task
        return feed

    def _forget_later(self, feed: Feed) -> None:
        asyncio.get_running_loop().call_later(self._limits.linger.total_seconds(), self._forget, feed)

    def _forget(self, feed: Feed) -> None:
        found = self._feeds.get(feed.execution_id)
        if found is not None and found[0] is feed:
            del self._feeds[feed.execution_id]

    def _close_unwatched(self, feed: Feed) -> None:
        found = self._feeds.get(feed.execution_id)
        if found is not None and found[0] is feed and not feed.replica.watched:
            found[1].cancel()
            self._forget(feed)  # at once: nobody may join what is about to end
