"""The queue, counted."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, bindparam, case, func, literal, select

from nanobatch_storage.adapters.database import Database
from nanobatch_storage.adapters.tables import UtcDateTime, buckets, credentials, executions, jobs, results, secrets
from nanobatch_storage.domain import Actor
from nanobatch_storage.errors import AdminOnlyError
from nanobatch_storage.stats import MOST_COOLING, CoolingKey, QueueStats

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
        async with self._database.read() as tx:
            now = tx.now
        (counted,) = await self._database.survey(_counts(now))
        states = await self._database.survey(
            select(executions.c.state, executions.c.pause_reason, func.count().label("n"))
            .where(executions.c.state.in_(_OPEN))
            .group_by(executions.c.state, executions.c.pause_reason)
        )
        cooling = await self._database.survey(
            select(buckets.c.provider, buckets.c.model, buckets.c.cooldown_reason, buckets.c.cooldown_until)
            .where(buckets.c.cooldown_until > now)
            .order_by(buckets.c.cooldown_until.desc())
            .limit(MOST_COOLING)
        )
        ((tasks,),) = await self._database.survey(select(func.count()).where(jobs.c.poll_at.is_not(None)))
        return QueueStats(
            read_at=now,
            ready=int(counted.ready),
            later=int(counted.later),
            in_flight=int(counted.in_flight),
            expired=int(counted.expired),
            oldest_ready=counted.oldest,
            active=sum(int(row.n) for row in states if row.state != "PAUSED"),
            paused={str(row.pause_reason): int(row.n) for row in states if row.state == "PAUSED"},
            cooling=[_cooling(row) for row in cooling],
            tasks_out=int(tasks),
        )

    async def key_ids(self) -> set[str]:
        """See the port."""
        found: set[str] = set()
        for table in (credentials, secrets):
            key_id = table.c.record["keyId"].as_string()
            rows = await self._database.survey(select(key_id).where(table.c.record.is_not(None)).distinct())
            found |= {str(row[0]) for row in rows}
        return found


def _counts(now: datetime) -> Select[*tuple[Any, ...]]:
    at = bindparam("now", now, UtcDateTime())
    pending = (results.c.state == "PENDING") & results.c.ready_at.is_not(None)
    working = results.c.state == "PROCESSING"
    due = results.c.ready_at <= at

    def many(condition: ColumnElement[bool]) -> ColumnElement[int]:
        return func.coalesce(func.sum(case((condition, 1), else_=literal(0))), 0)

    return (
        select(
            many(pending & due).label("ready"),
            many(pending & ~due).label("later"),
            many(working).label("in_flight"),
            many(working & (results.c.lease_expires_at <= at)).label("expired"),
            func.min(case((pending & due, results.c.ready_at)), type_=UtcDateTime()).label("oldest"),
        )
        .select_from(results.join(executions, executions.c.id == results.c.execution_id))
        .where(executions.c.state.in_(("PENDING", "PROCESSING")), results.c.state.in_(("PENDING", "PROCESSING")))
    )


def _cooling(row: Row[Any]) -> CoolingKey:
    return CoolingKey(row.provider, row.model, row.cooldown_reason or "", row.cooldown_until)
