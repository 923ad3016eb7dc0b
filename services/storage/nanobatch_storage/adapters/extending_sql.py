"""Extending leases: the heartbeat of whoever works under them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Interval, Update, bindparam, case, func, select, update

from nanobatch_runtime.ids import is_id
from nanobatch_storage.adapters import rows
from nanobatch_storage.adapters.database import Database
from nanobatch_storage.adapters.prepared import Prepared
from nanobatch_storage.adapters.tables import PROCESSING, UtcDateTime, results
from nanobatch_storage.domain import LeaseRef, ResultState

_NAMED = results.c.id.in_(bindparam("ids", expanding=True))
# By lease as well as by result: somebody may hold an old and a new lease of the same one.
_HELD = (
    results.c.lease_id.in_(bindparam("lease_ids", expanding=True)),
    results.c.state.in_([ResultState.PROCESSING.value, ResultState.CANCELLED.value]),
)
_UNTIL: BindParameter[datetime] = bindparam("until", type_=UtcDateTime)


def _prolonging(until: ColumnElement[datetime], *which: ColumnElement[bool]) -> Update:
    # A cancelled result's call runs on, so that its picture is kept; but it is never ready again.
    ready_at = case((PROCESSING, until), else_=results.c.ready_at)
    beating = update(results).where(*which).values(lease_expires_at=until, ready_at=ready_at)
    return beating.returning(results.c.id, results.c.lease_id)


def _prolonging_locked() -> Update:
    """Prolong what was locked before, in the order of ids like everywhere: by then the rows are held, and the clock is read."""
    locked = rows.for_update(select(results.c.id).where(_NAMED, *_HELD).order_by(results.c.id)).cte("locked")
    until = func.coalesce(_UNTIL, func.clock_timestamp() + bindparam("duration", type_=Interval))
    # The ids once more: without them the planner may join by reading the whole table.
    return _prolonging(until, results.c.id == locked.c.id, _NAMED)


_EXTEND = Prepared(_prolonging(_UNTIL, _NAMED, *_HELD), postgresql=_prolonging_locked())


async def extend(
    database: Database, duration: timedelta, asked: Sequence[Sequence[LeaseRef]]
) -> list[list[LeaseRef] | Exception]:
    """Extend leases to their full length from now; returns the lost ones of each who asks."""
    named = {ref for refs in asked for ref in refs if is_id(ref.result_id) and is_id(ref.lease_id)}

    def names(now: datetime | None) -> dict[str, Any]:
        return {
            "ids": list({ref.result_id for ref in named}),
            "lease_ids": [ref.lease_id for ref in named],
            "until": now and now + duration,
            "duration": duration,
        }

    held = {LeaseRef(row.id, row.lease_id) for row in await database.change(_EXTEND, names)}
    return [[ref for ref in refs if ref not in held] for refs in asked]
