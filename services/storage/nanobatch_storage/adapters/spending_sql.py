"""What a user may still spend in a day, where they have a cap.

Nothing is counted along: the ledger and the open reservations say it each time, so that there is no second figure to
disagree with. Users without a cap pay one look at their row for it; the lock on it makes a capped user's leases queue.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import bindparam, case, func, select, update

from nanobatch_storage.adapters import rows
from nanobatch_storage.adapters.database import Transaction
from nanobatch_storage.adapters.prepared import Prepared
from nanobatch_storage.adapters.tables import attempts, executions, live_executions, users
from nanobatch_storage.domain import Charged, Execution, ExecutionState, PauseReason, Result

_CAPS = Prepared(
    rows.for_update(
        select(users.c.id, users.c.daily_cap_micros)
        .where(users.c.id.in_(bindparam("ids", expanding=True)), users.c.daily_cap_micros.is_not(None))
        .order_by(users.c.id)
    )
)
_RESERVED = Prepared(
    select(func.coalesce(func.sum(live_executions.c.reserved_micros), 0)).where(
        live_executions.c.user_id == bindparam("user_id")
    )
)
# What may have been charged and was not reported counts with its worst case.
_UNKNOWN = (attempts.c.charged == Charged.MAYBE) & attempts.c.usage_reported.is_(False)
_SPENT = Prepared(
    select(
        func.coalesce(func.sum(case((_UNKNOWN, attempts.c.reserved_micros), else_=attempts.c.cost_micros)), 0)
    ).where(
        attempts.c.user_id == bindparam("user_id"),
        attempts.c.start_time >= bindparam("day"),
        attempts.c.charged.is_not(None),
    )
)


@dataclass(slots=True)
class DayRoom:
    """What a capped user may still spend today; calls count on the day (UTC) that they start."""

    left_micros: int
    reserved_micros: int
    """Part of what is taken that may still turn out cheaper."""
    ends: datetime
    """When the next day begins."""


def has_room(execution: Execution, day: DayRoom | None) -> bool:
    """Whether the worst case of one more call fits under all caps; what is free always fits under that of the day.

    Pauses the execution where it does not, and nothing is out that could still turn out cheaper.
    """
    if not execution.has_room():
        _pause(execution, execution.reserved_micros, PauseReason.SPEND_CAP, None)
        return False
    if day is not None and execution.reservation_micros > max(0, day.left_micros):
        _pause(execution, day.reserved_micros, PauseReason.DAILY_SPEND_CAP, day.ends)
        return False
    return True


def _pause(execution: Execution, reserved_micros: int, reason: PauseReason, until: datetime | None) -> None:
    if reserved_micros == 0 and execution.state is not ExecutionState.PAUSED:
        execution.pause(reason, until)


def reserve(execution: Execution, result: Result, day: DayRoom | None) -> None:
    """Reserve the worst case of a call for ``result``."""
    result.reserved_micros = execution.reservation_micros
    execution.reserved_micros += result.reserved_micros
    if day is not None:
        day.left_micros -= result.reserved_micros
        day.reserved_micros += result.reserved_micros


async def lock_days(tx: Transaction, user_ids: Iterable[str]) -> dict[str, DayRoom]:
    """Lock the spending of those users who have a cap, and return what is left of their day.

    First in the order of locks.
    """
    day = tx.now.replace(hour=0, minute=0, second=0, microsecond=0)
    rooms = {}
    for row in (await tx.connection.execute(_CAPS, {"ids": list(user_ids)})).all():
        names = {"user_id": row.id}
        reserved = int((await tx.connection.execute(_RESERVED, names)).scalar_one())
        spent = int((await tx.connection.execute(_SPENT, {**names, "day": day})).scalar_one())
        rooms[row.id] = DayRoom(row.daily_cap_micros - spent - reserved, reserved, day + timedelta(days=1))
    return rooms


async def let_go_on(tx: Transaction, user_id: str) -> None:
    """Let the executions that a user's cap has paused be resumed: it has been changed. They pause again where it is full."""
    paused = select(executions.c.id).where(
        executions.c.user_id == user_id,
        executions.c.state == ExecutionState.PAUSED,
        executions.c.pause_reason == PauseReason.DAILY_SPEND_CAP,
    )
    ids = [row.id for row in await tx.connection.execute(rows.for_update(paused.order_by(executions.c.id)))]
    if ids:
        await tx.connection.execute(update(executions).where(executions.c.id.in_(ids)).values(resume_time=tx.now))
