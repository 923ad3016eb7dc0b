"""Taking leases: what fairness has dealt, as far as locked rows, windows and caps let it."""

from __future__ import annotations

import math
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, bindparam, case, func, select

from nanobatch_storage.adapters import closing_sql, jobs_sql, picking_sql, rows, spending_sql
from nanobatch_storage.adapters.credentials_sql import wipe_key_if_done
from nanobatch_storage.adapters.database import Database, Transaction
from nanobatch_storage.adapters.picking_sql import Wanted
from nanobatch_storage.adapters.prepared import Prepared
from nanobatch_storage.adapters.spending_sql import DayRoom
from nanobatch_storage.adapters.tables import credentials, live_executions
from nanobatch_storage.domain import (
    RUNNABLE_EXECUTION_STATES,
    Attempt,
    Bucket,
    EncryptedKey,
    Execution,
    ExecutionState,
    Lease,
    Result,
    ResultState,
)
from nanobatch_storage.fairness import Candidate
from nanobatch_storage.policy import is_suspect


def in_flight() -> ColumnElement[int]:
    """How many places of its bucket an execution takes.

    Calls that are out of a cancelled execution still count; so do leases whose call has not begun. A call that has ended
    does not, though its picture is still being finished.
    """
    e = live_executions.c
    return case((e.open_attempts > e.processing, e.open_attempts), else_=e.processing) - e.finishing


_ROOMY = 0.25
"""While so much of its window is free, nobody waits for a bucket's calls to end, and a transaction for each is saved."""


_IN_FLIGHT = Prepared(
    select(live_executions.c.bucket_id, func.sum(in_flight()).label("in_flight"))
    .where(live_executions.c.bucket_id.in_(bindparam("ids", expanding=True)))
    .group_by(live_executions.c.bucket_id)
)
_KEYS = Prepared(
    select(credentials.c.id, credentials.c.record).where(
        credentials.c.id.in_(bindparam("ids", expanding=True)), credentials.c.record.is_not(None)
    )
)


@dataclass(frozen=True, slots=True)
class Order:
    """What fairness has dealt to an execution."""

    of: Candidate
    count: int
    has_lost: bool
    """Whether it has leases that ran out."""


@dataclass(slots=True)
class _Ready:
    """What is locked of one execution."""

    lost: Sequence[Result]
    waiting: Sequence[Result] = ()

    def within(self, places: int) -> list[Result]:
        """Return what to lease where so many places are free: the lost ones in any case, and first."""
        return [*self.lost, *self.waiting[: max(places, 0)]]


@dataclass(slots=True)
class _Taken:
    """What was leased of one execution."""

    execution: Execution
    bucket: Bucket
    picked: Sequence[Result]
    leased: list[Result]
    out: dict[str, Attempt]
    """Attempts whose task is still out, by result."""
    free: int
    """So many of them may begin at once; the others stand by."""
    ready_at: dict[str, datetime]
    """Since when each of them could be leased."""


class Taking:
    """Leases results of several executions in one transaction."""

    def __init__(
        self, database: Database, *, duration: timedelta, ahead: float, loop_lag: Callable[[], timedelta]
    ) -> None:
        """See :class:`nanobatch_storage.adapters.leases_sql.SqlLeases`."""
        self._database = database
        self._duration = duration
        self._ahead = ahead
        self._loop_lag = loop_lag

    def places(self, bucket: Bucket, now: datetime) -> int:
        """How many results of a bucket may be leased: its window, and a few that stand by."""
        window = bucket.calls_allowed(now)
        return window if bucket.needs_key_check(now) else window + math.ceil(window * self._ahead)

    async def take(self, tx: Transaction, orders: Sequence[Order], suspects: int) -> tuple[list[Lease], list[str]]:
        """Lease what is ordered, in that order; returns the executions that changed, too."""
        days = await spending_sql.lock_days(tx, {order.of.user_id for order in orders})
        buckets = await rows.lock_buckets(tx, {order.of.bucket_id for order in orders})
        held = await rows.lock_executions(tx, [order.of.execution_id for order in orders])
        # A lease that counted from before the wait for these locks might be over when it is given out.
        await self._database.look_at_clock(tx)
        found = await tx.connection.execute(_IN_FLIGHT, {"ids": list(buckets)})
        busy = Counter({row.bucket_id: int(row.in_flight) for row in found})
        able = [
            (order, execution, bucket)
            for order in orders
            if (execution := held.get(order.of.execution_id)) is not None
            and (bucket := buckets.get(order.of.bucket_id)) is not None
            and _may_run(execution, bucket, tx.now)
        ]
        ready = await self._pick(tx, able, busy, suspects)
        taken: list[_Taken] = []
        for order, execution, bucket in able:
            revision, before = execution.revision, _in_flight_of(execution)
            day, places = days.get(order.of.user_id), self.places(bucket, tx.now) - busy[bucket.id]
            picked = ready[execution.id].within(places)
            one = await self._take_from(tx, picked, execution, bucket, busy[bucket.id], day, suspects)
            suspects -= sum(map(is_suspect, one.leased))
            if execution.revision != revision:
                execution.close_if_done(tx.now)
                busy[bucket.id] += _in_flight_of(execution) - before
                taken.append(one)
        if not taken:
            return [], []
        await rows.save(tx, [result for one in taken for result in one.picked])
        await rows.save(tx, [attempt for one in taken for attempt in one.out.values()])
        await rows.save(tx, [one.execution for one in taken])
        for one in taken:
            await wipe_key_if_done(tx, one.execution)
        return await self._leases(tx, taken), [one.execution.id for one in taken]

    async def _take_from(  # noqa: PLR0917  # what an order needs of the transaction
        self,
        tx: Transaction,
        picked: Sequence[Result],
        execution: Execution,
        bucket: Bucket,
        busy: int,
        day: DayRoom | None,
        suspects: int,
    ) -> _Taken:
        """Lease ready results of an execution, which are locked, as far as caps and policy let it.

        ``busy`` places of the bucket are taken.
        """
        ready_at = {result.id: result.ready_at or tx.now for result in picked}
        lost = [result for result in picked if result.state is ResultState.PROCESSING]
        free = bucket.calls_allowed(tx.now) - busy + len(lost)  # they still count as in flight
        failed, out = await closing_sql.close_lost(tx, execution, lost)
        leased: list[Result] = []
        for result in picked:
            if result.id in failed:
                continue
            if result.id in out:  # paid for and reserved already: it is only asked for
                out[result.id].lease_id = self._give(execution, result, tx.now)
                leased.append(result)
                continue
            suspect = is_suspect(result)
            if not spending_sql.has_room(execution, day) or (suspect and suspects <= 0):
                if result.state is ResultState.PROCESSING:  # the lost one waits like the others
                    result.drop_lease()
                    result.ready_at = tx.now
                    execution.move(result, ResultState.PENDING)
                continue
            suspects -= suspect
            spending_sql.reserve(execution, result, day)
            self._give(execution, result, tx.now)
            leased.append(result)
        if leased and execution.state is ExecutionState.PENDING:
            execution.state = ExecutionState.PROCESSING
            execution.start_time = execution.start_time or tx.now
            execution.touch()
        return _Taken(execution, bucket, picked, leased, out, free, ready_at)

    async def _pick(
        self,
        tx: Transaction,
        able: Sequence[tuple[Order, Execution, Bucket]],
        busy: Mapping[str, int],
        suspects: int,
    ) -> dict[str, _Ready]:
        """Lock ready results, by execution: lost ones, and waiting ones as far as there are places."""
        ready: dict[str, _Ready] = {}
        wanted: list[Wanted] = []
        for order, execution, bucket in able:
            lost: list[Result] = []
            if order.has_lost:
                lost = await picking_sql.lost(tx, execution.id, order.count, until=tx.now - self._loop_lag())
            ready[execution.id] = _Ready(lost)
            count = min(order.count - len(lost), self.places(bucket, tx.now) - busy[bucket.id])
            if count > 0:
                wanted.append(Wanted(execution.id, execution.first_pending, count))
        for execution_id, waiting in (await picking_sql.waiting(tx, wanted, suspects) if wanted else {}).items():
            ready[execution_id].waiting = waiting
        for _, execution, _ in able:
            await picking_sql.note_first(tx, execution, ready[execution.id].waiting)
        return ready

    def _give(self, execution: Execution, result: Result, now: datetime) -> str:
        lease_id = result.lease_id = str(uuid.uuid4())
        result.ready_at = result.lease_expires_at = now + self._duration
        execution.move(result, ResultState.PROCESSING)
        return lease_id

    async def _leases(self, tx: Transaction, taken: Sequence[_Taken]) -> list[Lease]:
        keys = await _keys_of(tx, [one.execution for one in taken if one.leased])
        jobs = await jobs_sql.of(tx, {result_id: attempt for one in taken for result_id, attempt in one.out.items()})
        return [
            Lease(
                one.execution,
                result,
                keys.get(one.execution.credential_id or ""),
                one.bucket.needs_key_check(tx.now),
                self._duration,
                standby=place >= one.free and result.id not in jobs,
                roomy=one.free - place > _ROOMY * one.bucket.calls_allowed(tx.now),
                job=jobs.get(result.id),
                waited=tx.now - one.ready_at[result.id],
            )
            for one in taken
            for place, result in enumerate(one.leased)
        ]


def _may_run(execution: Execution, bucket: Bucket, now: datetime) -> bool:
    is_same = execution.bucket_id == bucket.id
    return execution.state in RUNNABLE_EXECUTION_STATES and is_same and not bucket.is_cooling(now)


def _in_flight_of(execution: Execution) -> int:
    """The same as :func:`in_flight`, of a row in memory."""
    return max(execution.open_attempts, execution.processing) - execution.finishing


async def _keys_of(tx: Transaction, of: Sequence[Execution]) -> dict[str, tuple[str, EncryptedKey]]:
    ids = {execution.credential_id for execution in of if execution.credential_id is not None}
    found = await tx.connection.execute(_KEYS, {"ids": list(ids)}) if ids else ()
    return {row.id: (row.id, rows.key_from_record(row.record)) for row in found}
