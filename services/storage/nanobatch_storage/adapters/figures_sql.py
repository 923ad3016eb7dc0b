"""The figures of the queue, in two statements whatever waits.

What waits is counted by the executions' own counters. Of the results only those are read that are put off or leased first,
by their indexes, so that a look costs the same with ten prompts waiting as with a million.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, bindparam, case, func, select

from nanobatch_storage.adapters.database import Database
from nanobatch_storage.adapters.rows import bucket_from
from nanobatch_storage.adapters.tables import (
    PENDING,
    PROCESSING,
    UtcDateTime,
    active_executions,
    buckets,
    live_executions,
    results,
)
from nanobatch_storage.domain import RUNNABLE_EXECUTION_STATES, Bucket
from nanobatch_storage.ports_queue import QueueFigures, What

_NOW = bindparam("now", type_=UtcDateTime)


def _of_results(count: ColumnElement[int], what: ColumnElement[Any], *conditions: ColumnElement[bool]) -> Any:
    # Looked up only where the execution's own counter says that there is something to find.
    found = select(what).where(results.c.execution_id == live_executions.c.id, *conditions).scalar_subquery()
    return case((count > 0, found))


_LIVE = live_executions.c
_EXECUTIONS = select(
    _LIVE.bucket_id,
    _LIVE.pending,
    _LIVE.processing,
    _of_results(_LIVE.pending, func.count(), PENDING, results.c.ready_at > _NOW).label("put_off"),
    _of_results(_LIVE.pending, func.min(results.c.ready_at), PENDING).label("first_ready"),
    _of_results(_LIVE.processing, func.min(results.c.ready_at), PROCESSING).label("first_expiry"),
).where(_LIVE.state.in_(sorted(RUNNABLE_EXECUTION_STATES)))
_BUCKETS = select(buckets).where(buckets.c.id.in_(select(active_executions.c.bucket_id)))


class SqlFigures:
    """See :class:`nanobatch_storage.ports_queue.Figures`."""

    def __init__(self, database: Database) -> None:
        """``database`` belongs to the caller."""
        self._database = database

    async def look(self) -> QueueFigures:
        """See the port."""
        async with self._database.read() as tx:
            now = tx.now
        by_id = {row.id: bucket_from(row) for row in await self._database.survey(_BUCKETS)}
        active: defaultdict[str, list[Row[Any]]] = defaultdict(list)
        for row in await self._database.survey(_EXECUTIONS.params(now=now)):
            active[row.bucket_id].append(row)
        figures = QueueFigures()
        for bucket_id, bucket in by_id.items():
            _add(figures, bucket, active[bucket_id], now)
        return figures


def _add(figures: QueueFigures, bucket: Bucket, active: Sequence[Row[Any]], now: datetime) -> None:
    what: What = (bucket.provider, bucket.model)
    leased = sum(row.processing for row in active)
    overdue = _age(now, [row.first_expiry for row in active])
    if bucket.cooldown_until is not None:  # until then nothing of it is leased, nor what a dead generator held
        overdue = min(overdue, _age(now, [bucket.cooldown_until]))
    ready, oldest = 0, 0.0
    if bucket.is_cooling(now):
        reason = bucket.cooldown_reason.name if bucket.cooldown_reason is not None else "UNKNOWN"
        figures.cooling[(*what, reason)] += 1
    else:
        ready = sum(row.pending - (row.put_off or 0) for row in active)
        oldest = _age(now, [row.first_ready for row in active])
    figures.ready[what] += ready
    figures.wanted[what] += min(ready + leased, bucket.calls_allowed(now))
    figures.oldest[what] = max(figures.oldest[what], oldest)
    figures.overdue[what] = max(figures.overdue[what], overdue)


def _age(now: datetime, times: Sequence[datetime | None]) -> float:
    return max(((now - time).total_seconds() for time in times if time is not None and time < now), default=0.0)
