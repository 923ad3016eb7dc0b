"""Opening attempts: as many of a bucket as its window and its pace let start now."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import bindparam, func, select, tuple_, update

from nanobatch_runtime.ids import is_id
from nanobatch_storage import pacing, quota
from nanobatch_storage.adapters import closing_sql, fence_sql, rows
from nanobatch_storage.adapters.database import Transaction
from nanobatch_storage.adapters.fence_sql import Held
from nanobatch_storage.adapters.prepared import Prepared
from nanobatch_storage.adapters.tables import attempts, live_executions
from nanobatch_storage.domain import (
    RUNNABLE_EXECUTION_STATES,
    Attempt,
    Bucket,
    EndedCall,
    Execution,
    FailureClass,
    LeaseRef,
    Result,
    ResultState,
    WaitReason,
)
from nanobatch_storage.errors import LeaseLostError, WindowFullError

Start = tuple[LeaseRef, str, EndedCall | None]
"""A lease whose call is to start, the bucket that it was given for, and the call that has ended for it."""
Started = tuple[str | LeaseLostError | WindowFullError, bool]
"""The attempt's id or what to raise, and whether the end of the other call has been noted."""

HELD = timedelta(seconds=1.5)
"""A start that lies further ahead is not waited for with the lease in hand."""
_LEFT = timedelta(seconds=1)
"""Who has less of a lease left starts no call by it: after an outage its heart may beat too late, and it is paid twice."""
_OUT = live_executions.c.open_attempts - live_executions.c.finishing
_OUT_ELSEWHERE = Prepared(
    select(live_executions.c.bucket_id, func.sum(_OUT).label("out"))
    .where(
        live_executions.c.bucket_id.in_(bindparam("ids", expanding=True)),
        live_executions.c.id.not_in(bindparam("own", expanding=True)),
    )
    .group_by(live_executions.c.bucket_id)
)
_CALL = tuple_(attempts.c.id, attempts.c.lease_id, attempts.c.result_id)
_END_CALLS = Prepared(
    update(attempts)
    .where(
        _CALL.in_(bindparam("calls", expanding=True)),
        attempts.c.execution_id.in_(bindparam("own", expanding=True)),
        attempts.c.charged.is_(None),
        attempts.c.answer_time.is_(None),
    )
    .values(answer_time=bindparam("at"))
    .returning(attempts.c.id, attempts.c.execution_id)
)
_OF_BUCKET = select(attempts.c.start_time, attempts.c.outcome).where(
    attempts.c.bucket_id == bindparam("bucket_id"), attempts.c.outcome != "RELEASED"
)
_LATEST = Prepared(_OF_BUCKET.order_by(attempts.c.start_time.desc()).limit(2))
_USED = Prepared(
    select(func.count()).where(
        attempts.c.bucket_id == bindparam("bucket_id"),
        attempts.c.start_time >= bindparam("since"),
        attempts.c.outcome.not_in(["RELEASED", FailureClass.RATE_LIMITED.value]),
    )
)


async def start(tx: Transaction, asked: Sequence[Start]) -> list[Started]:
    """Open the attempts of leases, in the order in which they were asked for; whoever has one already gets that again."""
    buckets = await rows.lock_buckets(tx, {bucket_id for _, bucket_id, _ in asked})
    held = await fence_sql.lock(tx, [lease for lease, _, _ in asked])
    told = await end_calls(tx, held.executions, [ended for _, _, ended in asked if ended is not None])
    starting = _Starting(tx, buckets, held)
    outcomes: list[Started] = []
    for lease, bucket_id, ended in asked:
        try:
            outcome: str | LeaseLostError | WindowFullError = await starting.start(lease, bucket_id)
        except (LeaseLostError, WindowFullError) as error:
            outcome = error
        outcomes.append((outcome, ended is not None and ended.attempt_id in told))
    await starting.add()
    await fence_sql.write(tx, held)
    return outcomes


class _Starting:
    """One transaction that opens attempts."""

    def __init__(self, tx: Transaction, buckets: dict[str, Bucket], held: Held) -> None:
        self._tx = tx
        self._buckets = buckets
        self._held = held
        self._new: list[Attempt] = []
        self._out_elsewhere: dict[str, int] | None = None
        self._traffic: dict[str, quota.Traffic] = {}

    async def start(self, lease: LeaseRef, bucket_id: str) -> str:
        """Return the id of the lease's attempt. Raises LeaseLostError, WindowFullError."""
        bucket = self._buckets.get(bucket_id)
        if bucket is None:
            raise LeaseLostError
        execution, result, attempt = self._held.of(lease)
        expired = result.lease_expires_at is None or result.lease_expires_at <= self._tx.now
        if result.state is not ResultState.PROCESSING or expired:
            raise LeaseLostError
        runnable = execution.state in RUNNABLE_EXECUTION_STATES
        if attempt is not None:
            # Who asks again has not called yet: it is too late where the execution was stopped meanwhile.
            if attempt.charged is None and runnable:
                return attempt.id
            raise LeaseLostError
        if not runnable or execution.bucket_id != bucket.id or self._is_nearly_over(result):
            # Paused, or another key since (this lease carries the old one), or too little of the lease is left.
            raise self._send_back(execution, result)
        return await self._open(lease, bucket, execution, result)

    def _is_nearly_over(self, result: Result) -> bool:
        return result.lease_expires_at is None or result.lease_expires_at <= self._tx.now + _LEFT

    async def _open(self, lease: LeaseRef, bucket: Bucket, execution: Execution, result: Result) -> str:
        """Open an attempt where window and pace of the bucket let its call start now."""
        now = self._tx.now
        out = await self._calls_out(bucket)
        start_at = await self._next_start(bucket, out)
        if start_at > now + HELD:  # a waiting prompt holds no worker slot
            raise self._send_back(execution, result)
        if out >= bucket.calls_allowed(now):
            raise WindowFullError
        if start_at > now + quota.EARLY:
            raise WindowFullError(start_at - quota.EARLY - now)
        attempt = Attempt(
            id=str(uuid.uuid4()),
            user_id=result.user_id,
            execution_id=execution.id,
            result_id=result.id,
            bucket_id=execution.bucket_id,
            job_id=None,
            lease_id=lease.lease_id,
            model=execution.model,
            reserved_micros=result.reserved_micros,
            start_time=start_at,
        )
        result.reserved_micros = 0
        execution.open_attempts += 1
        self._held.attempts[lease] = attempt
        self._new.append(attempt)
        if bucket.id in self._traffic:
            self._traffic[bucket.id] = self._traffic[bucket.id].with_start(start_at)
        return attempt.id

    async def add(self) -> None:
        """Write the attempts that were opened."""
        await rows.add(self._tx, self._new)
        self._new.clear()

    async def _calls_out(self, bucket: Bucket) -> int:
        """How many calls of the bucket are out; those of locked executions count as they are in memory."""
        own = self._held.executions
        if self._out_elsewhere is None:
            self._out_elsewhere = await calls_out(self._tx, self._buckets, own)
        mine = (e for e in own.values() if e.bucket_id == bucket.id)
        return self._out_elsewhere.get(bucket.id, 0) + sum(e.open_attempts - e.finishing for e in mine)

    async def _next_start(self, bucket: Bucket, out: int) -> datetime:
        """When the bucket's next call may start. Nothing is asked of the database while there is no pace to keep."""
        now = self._tx.now
        if not quota.is_paced(bucket, out, now):
            return now
        if bucket.id not in self._traffic:  # looked up once; what starts in this transaction is counted along
            await self.add()
            self._traffic[bucket.id] = await traffic_of(self._tx, bucket, out)
        start_at = quota.next_start(bucket, replace(self._traffic[bucket.id], out=out), now)
        if start_at > now + HELD and not bucket.is_cooling(now):
            pacing.cool(bucket, start_at, WaitReason.PACED)  # so that nobody asks before, and readers are told
            await rows.save(self._tx, [bucket])
        return start_at

    def _send_back(self, execution: Execution, result: Result) -> LeaseLostError:
        closing_sql.give_back(execution, result)
        result.ready_at = self._tx.now
        return LeaseLostError()


async def end_calls(tx: Transaction, own: dict[str, Execution], ended: Sequence[EndedCall]) -> set[str]:
    """Note the ends of calls of locked executions; returns the attempts for which that was news.

    What is not an open attempt of theirs tells nothing.
    """
    calls = [(call.attempt_id, call.lease.lease_id, call.lease.result_id) for call in ended]
    calls = [call for call in calls if all(map(is_id, call))]
    if not (calls and own):
        return set()
    news = (await tx.connection.execute(_END_CALLS, {"calls": calls, "own": list(own), "at": tx.now})).all()
    for row in news:
        own[row.execution_id].finishing += 1
    return {row.id for row in news}


async def calls_out(tx: Transaction, bucket_ids: Iterable[str], but_of: Iterable[str]) -> dict[str, int]:
    """Return how many calls of each bucket are out, those of some executions left aside."""
    names = {"ids": list(bucket_ids), "own": list(but_of)}
    return {row.bucket_id: int(row.out) for row in await tx.connection.execute(_OUT_ELSEWHERE, names)}


async def traffic_of(tx: Transaction, bucket: Bucket, out: int) -> quota.Traffic:
    """Return the latest starts of a bucket."""
    found = await tx.connection.execute(_LATEST, {"bucket_id": bucket.id})
    last, before, *_ = [*(row.start_time for row in found), None, None]
    began, used = quota.period_start(bucket, tx.now), 0
    if began is not None:
        used = (await tx.connection.execute(_USED, {"bucket_id": bucket.id, "since": began})).scalar_one()
    return quota.Traffic(out, last, before, used)
