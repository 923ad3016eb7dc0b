"""One execution followed in storage, for all who watch it at this generator, with guesses about what runs here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from functools import partial

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
from nanobatch_runtime.replica import Replica

_log = structlog.get_logger("nanobatch.progress")

_BACKOFF_BASE = timedelta(seconds=0.1)
_BACKOFF_CAP = timedelta(seconds=2)
# A stream that has held this long was a working one: what broke it begins a new outage.
_HELD_SECONDS = 5.0

_moved = partial(WatchMovedError, "This generator cannot serve the watch any longer; watch on from the revision given.")


class Hub:
    """Follows one execution in storage as long as anybody watches it here."""

    def __init__(self, execution_id: str, changes: Changes, messages: Messages, *, patience: timedelta) -> None:
        """An outage of storage that is longer than ``patience`` ends the watches resumably."""
        self.execution_id = execution_id
        self._changes = changes
        self._messages = messages
        self._patience = patience.total_seconds()
        self._replica: Replica[Update] = Replica(messages.with_stats)
        self._processing = 0
        self._waiting: Waiting | None = None

    @property
    def ended(self) -> bool:
        """Whether it follows no longer."""
        return self._replica.ended

    @property
    def watched(self) -> bool:
        """Whether anybody watches."""
        return self._replica.watched

    def watch(self, after_revision: int, *, lasting: timedelta | None = None) -> AsyncGenerator[object]:
        """Give all rows beyond ``after_revision``, then live ones; see :meth:`Replica.watch`.

        Raises WatchMovedError after ``lasting``, so that the next watch may begin at another generator.
        """
        return self._replica.watch(after_revision, lasting=lasting, moved=_moved)

    def move(self) -> None:
        """End all watches resumably: this generator drains."""
        self._replica.end(_moved)

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
                async with aclosing(self._changes.follow(self.execution_id, self._replica.revision)) as updates:
                    async for update in updates:
                        failures = 0
                        self._processing = update.processing
                        self._replica.apply(update)
                self._replica.end()
            except NanobatchError as error:
                if self._is_final(error):
                    return
                if error.reason == WatchMovedError.reason and time.monotonic() - started > _HELD_SECONDS:
                    continue  # its server retires or renews its streams; another one goes on at once
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
        self.estimate_calls(running)
        stats = self._replica.stats
        if self.ended or stats is None:
            return
        waiting = self._reason_to_wait(now) if idle and not self._processing else None
        if waiting != self._waiting:
            self._waiting = waiting
            self._replica.tell("", self._messages.progress(Estimate("", waiting=waiting), stats))

    def estimate_calls(self, running: Sequence[Estimate]) -> None:
        """Give light progress of results, wherever they run."""
        stats = self._replica.stats
        if self.ended or stats is None:
            return
        for item in running:
            row = self._replica.row(item.result_id)
            if row is None or not row.running:  # committed a moment ago: no guess may follow a final state
                continue
            self._replica.tell(item.result_id, self._messages.progress(item, stats))

    def _is_final(self, error: NanobatchError) -> bool:
        if error.kind is Kind.NOT_FOUND:
            self._replica.end(partial(ExecutionGoneError, str(error)))
        elif error.kind is Kind.OUT_OF_RANGE:  # storage has forgotten what we have seen: a restored backup
            self._replica.end(partial(RevisionUnknownError, str(error)))
        return self.ended

    def _reason_to_wait(self, now: datetime) -> Waiting | None:
        reasons = [row.waiting for row in self._replica.rows() if row.waiting is not None]
        open_ones = [waiting for waiting in reasons if waiting.until is None or waiting.until > now]
        return min(open_ones, key=lambda waiting: (waiting.until is None, waiting.until), default=None)
