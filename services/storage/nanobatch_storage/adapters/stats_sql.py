"""The queue, counted."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, bindparam, case, false, func, literal, select

from nanobatch_storage.adapters.database import Database
from nanobatch_storage.adapters.rows import settings_from
from nanobatch_storage.adapters.tables import UtcDateTime, buckets, credentials, executions, jobs, results, secrets
from nanobatch_storage.domain import Actor
from nanobatch_storage.errors import AdminOnlyError
from nanobatch_storage.stats import MOST_COOLING, MOST_TASKS, CoolingKey, QueueStats, TaskOut

# Only those of executions that are not final: the indexes of the queue are by execution.
_OPEN = ("PENDING", "PROCESSING", "PAUSED")


class SqlStats:
    """See :class:`nanobatch_storage.ports.Stats`."""

    def __init__(self, database: Database) -> None:
        """Take the database."""
        self._database = database

    async def queue(self, actor: Actor) -> QueueStats:
        """See the port."""
        if not actor.admin:
            raise AdminOnlyError
        async with self._database.read(actor) as tx:
            now = tx.now
        (counted,) = await self._database.survey(_counts(now))
        states = await self._database.survey(
            select(executions.c.state, executions.c.pause_reason, func.count().label("n"))
            .where(executions.c.state.in_(_OPEN))
            .group_by(executions.c.state, executions.c.pause_reason)
        )
        cooling = await self._database.survey(_cooling(now))
        ((out,),) = await self._database.survey(select(func.count()).where(jobs.c.poll_at.is_not(None)))
        tasks = await self._database.survey(_TASKS) if out else ()
        return QueueStats(
            read_at=now,
            ready=int(counted.ready),
            later=int(counted.later),
            cooling_results=int(counted.cooling),
            in_flight=int(counted.in_flight),
            expired=int(counted.expired),
            oldest_ready=counted.oldest,
            active=sum(int(row.n) for row in states if row.state != "PAUSED"),
            paused={str(row.pause_reason): int(row.n) for row in states if row.state == "PAUSED"},
            cooling=[_cooling_key(row) for row in cooling],
            tasks_out=int(out),
            tasks=[_task_out(row) for row in tasks],
        )

    async def key_ids(self) -> set[str]:
        """See the port."""
        found: set[str] = set()
        for table in (credentials, secrets):
            key_id = table.c.record["keyId"].as_string()
            rows = await self._database.survey(select(key_id).where(table.c.record.is_not(None)).distinct())
            found |= {str(row[0]) for row in rows}
        return found


_PENDING = (results.c.state == "PENDING") & results.c.ready_at.is_not(None)
_TASKS = (
    select(jobs.c.provider, jobs.c.task_id, jobs.c.execution_id, jobs.c.create_time, executions.c.settings)
    .select_from(jobs.join(executions, executions.c.id == jobs.c.execution_id))
    .where(jobs.c.poll_at.is_not(None))
    .order_by(jobs.c.create_time)
    .limit(MOST_TASKS)
)


def _counts(now: datetime) -> Select[*tuple[Any, ...]]:
    at = bindparam("now", now, UtcDateTime())
    working = results.c.state == "PROCESSING"
    due = results.c.ready_at <= at
    cooling = func.coalesce(buckets.c.cooldown_until > at, false())
    ready = _PENDING & due & ~cooling
    since = case((buckets.c.cooldown_until > results.c.ready_at, buckets.c.cooldown_until), else_=results.c.ready_at)

    def many(condition: ColumnElement[bool]) -> ColumnElement[int]:
        return func.coalesce(func.sum(case((condition, 1), else_=literal(0))), 0)

    return (
        select(
            many(ready).label("ready"),
            many(_PENDING & (~due | cooling)).label("later"),
            many(_PENDING & due & cooling).label("cooling"),
            many(working).label("in_flight"),
            many(working & (results.c.lease_expires_at <= at)).label("expired"),
            func.min(case((ready, since)), type_=UtcDateTime()).label("oldest"),
        )
        .select_from(
            results.join(executions, executions.c.id == results.c.execution_id).join(
                buckets, buckets.c.id == executions.c.bucket_id
            )
        )
        .where(executions.c.state.in_(("PENDING", "PROCESSING")), results.c.state.in_(("PENDING", "PROCESSING")))
    )


def _cooling(now: datetime) -> Select[*tuple[Any, ...]]:
    at = bindparam("now", now, UtcDateTime())
    waiting = (
        select(func.count())
        .select_from(results.join(executions, executions.c.id == results.c.execution_id))
        .where(executions.c.bucket_id == buckets.c.id, executions.c.state.in_(("PENDING", "PROCESSING")))
        .where(_PENDING, results.c.ready_at <= at)
        .scalar_subquery()
    )
    return (
        select(*(buckets.c[name] for name in ("provider", "model", "cooldown_reason", "cooldown_until")))
        .add_columns(waiting.label("results"))
        .where(buckets.c.cooldown_until > at)
        .order_by(buckets.c.cooldown_until.desc())
        .limit(MOST_COOLING)
    )


def _cooling_key(row: Row[Any]) -> CoolingKey:
    return CoolingKey(row.provider, row.model, row.cooldown_reason or "", row.cooldown_until, int(row.results))


def _task_out(row: Row[Any]) -> TaskOut:
    timeout = timedelta(milliseconds=settings_from(row.settings).timeout_ms)
    return TaskOut(row.provider, row.task_id, row.execution_id, row.create_time, timeout)
