"""The replica of one execution, and the watchers that read it.

Watching is state replication, not a log: the hub keeps the newest message of each row, and each watcher a cursor. A
watcher is sent all rows beyond its cursor in ascending order, then waits. One that is slow finds fewer, newer rows: the
replica bounds what it can fall behind, and no queue grows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from nanobatch_generator.domain import (
    Estimate,
    ExecutionGoneError,
    RevisionUnknownError,
    Update,
    Waiting,
    WatchMovedError,
)
from nanobatch_generator.ports import Changes, Messages
from nanobatch_runtime.backoff import full_jitter
from nanobatch_runtime.errors import Kind, NanobatchError

_log = structlog.get_logger("nanobatch.progress")

_BACKOFF_BASE = timedelta(seconds=0.1)
_BACKOFF_CAP = timedelta(seconds=2)
# A stream that has held this long was a working one: what broke it begins a new outage.
_HELD_SECONDS = 5.0

_MOVED = "This generator cannot serve the watch any longer; watch again from the revision given."


@dataclass(slots=True)
class _Row:
    """The newest message of a row, and the counts it carries."""

    revision: int
    message: object
    stats: object
    running: bool
    waiting: Waiting | None


class _Watcher:
    """One reader's place."""

    def __init__(self, cursor: int, tick: int) -> None:
        self.cursor = cursor
        self.tick = tick
        self.wake = asyncio.Event()


class Hub:
    """Follows one execution in storage as long as anybody watches it here."""

    def __init__(self, execution_id: str, changes: Changes, messages: Messages, *, patience: timedelta) -> None:
        """An outage of storage that is longer than ``patience`` ends the watches resumably."""
        self.execution_id = execution_id
        self.ended = False
        self._changes = changes
        self._messages = messages
        self._patience = patience.total_seconds()
        self._revision = 0
        self._stats: object = None
        self._processing = 0
        # In ascending order of revision: a changed row is taken out and put in again at the end.
        self._rows: dict[str, _Row] = {}
        # Light messages by row, each with the tick it was made at; never replayed to those who come later.
        self._light: dict[str, tuple[int, object]] = {}
        self._tick = 0
        self._waiting: Waiting | None = None
        self._newcomers = False
        self._failure: tuple[type[NanobatchError], str] | None = None
        self._watchers: set[_Watcher] = set()

    @property
    def watched(self) -> bool:
        """Whether anybody watches."""
        return bool(self._watchers)

    async def watch(self, after_revision: int) -> AsyncGenerator[object]:
        """Give all rows beyond ``after_revision``, then live ones. Ends after the final state has been given.

        Raises a NanobatchError with the metadata ``revision`` where it ends otherwise.
        """
        watcher = _Watcher(after_revision, self._tick)
        self._watchers.add(watcher)
        self._newcomers = True  # who resumes at the newest row has not heard why nothing moves
        try:
            while True:
                watcher.wake.clear()
                for message in self._news(watcher):
                    yield message
                    self._check(watcher)
                if watcher.wake.is_set():
                    continue
                self._check(watcher)
                if self.ended:
                    return
                await watcher.wake.wait()
        finally:
            self._watchers.discard(watcher)

    def end(self, error: type[NanobatchError] | None = None, message: str = "") -> None:
        """End all watches: after what they have not been given yet, or with ``error`` at once."""
        if self.ended:
            return
        self.ended = True
        self._failure = None if error is None else (error, message)
        self._wake()

    def move(self) -> None:
        """End all watches resumably: this generator drains."""
        self.end(WatchMovedError, _MOVED)

    async def follow(self) -> None:
        """Replicate until the execution has ended, is deleted, or storage is away for too long."""
        try:
            await self._follow()
        finally:
            self.move()  # whatever ended it otherwise: nobody waits here for news that will not come

    async def _follow(self) -> None:
        failures, broken_since = 0, 0.0
        while not self.ended:
            started = time.monotonic()
            try:
                async with aclosing(self._changes.follow(self.execution_id, self._revision)) as updates:
                    async for update in updates:
                        failures = 0
                        self._apply(update)
                self.end()
            except NanobatchError as error:
                if self._is_final(error):
                    return
                now = time.monotonic()
                if failures == 0 or now - started > _HELD_SECONDS:
                    failures, broken_since = 0, now
                    _log.warning("watch.broken", execution=self.execution_id, reason=error.reason)
                if now - broken_since > self._patience:
                    self.move()
                failures += 1
                wait = full_jitter(failures, base=_BACKOFF_BASE, cap=_BACKOFF_CAP)
                await asyncio.sleep(wait.total_seconds())
            except Exception:  # noqa: BLE001  # a bug here ends these watches, not the process
                _log.exception("watch.failed", execution=self.execution_id)
                self.move()

    def estimate(self, running: list[Estimate], now: datetime, *, idle: bool) -> None:
        """Give light progress: of results that run here, and, where none does (``idle``), why the execution waits."""
        if self.ended or self._stats is None:
            return
        self._tick += 1
        for item in running:
            row = self._rows.get(item.result_id)
            if row is None or not row.running:  # committed a moment ago: no guess may follow a final state
                continue
            self._light[item.result_id] = (self._tick, self._messages.progress(item, self._stats))
        waiting = self._reason_to_wait(now) if idle and not self._processing else None
        if waiting != self._waiting or (waiting is not None and self._newcomers):
            self._waiting = waiting
            self._newcomers = False
            message = self._messages.progress(Estimate("", waiting=waiting), self._stats)
            self._light[""] = (self._tick, message)
        elif not running:
            return
        self._wake()

    def _news(self, watcher: _Watcher) -> Iterator[object]:
        """Give what this watcher has not seen, moving its cursor along; a snapshot, since rows change meanwhile."""
        fresh = []
        for row in reversed(self._rows.values()):
            if row.revision <= watcher.cursor:
                break
            fresh.append(row)
        for row in reversed(fresh):
            watcher.cursor = row.revision
            yield self._message(row)
        light = [message for tick, message in self._light.values() if tick > watcher.tick]
        watcher.tick = self._tick
        yield from light

    def _message(self, row: _Row) -> object:
        # Made at most once per row and change of the counts, then shared by all watchers who need it.
        if row.stats is not self._stats:
            row.message = self._messages.with_stats(row.message, self._stats)
            row.stats = self._stats
        return row.message

    def _check(self, watcher: _Watcher) -> None:
        if self._failure is not None:
            error, message = self._failure
            raise error(message, metadata={"revision": str(watcher.cursor)})

    def _apply(self, update: Update) -> None:
        if update.revision and update.revision <= self._revision:
            return  # replayed by storage after a new subscription
        self._stats = update.stats
        self._processing = update.processing
        if update.revision:
            self._revision = update.revision
            self._rows.pop(update.row_id, None)
            self._rows[update.row_id] = _Row(
                update.revision, update.message, update.stats, update.running, update.waiting
            )
            # What was guessed about this row is older than this.
            self._light.pop(update.row_id, None)
        else:
            self._tick += 1
            self._light[update.row_id] = (self._tick, update.message)
        self._wake()

    def _is_final(self, error: NanobatchError) -> bool:
        if error.kind is Kind.NOT_FOUND:
            self.end(ExecutionGoneError, str(error))
        elif error.kind is Kind.OUT_OF_RANGE:  # storage has forgotten what we have seen: a restored backup
            self.end(RevisionUnknownError, str(error))
        return self.ended

    def _reason_to_wait(self, now: datetime) -> Waiting | None:
        reasons = [row.waiting for row in self._rows.values() if row.waiting is not None]
        open_ones = [waiting for waiting in reasons if waiting.until is None or waiting.until > now]
        return min(open_ones, key=lambda waiting: (waiting.until is None, waiting.until), default=None)

    def _wake(self) -> None:
        for watcher in self._watchers:
            watcher.wake.set()
