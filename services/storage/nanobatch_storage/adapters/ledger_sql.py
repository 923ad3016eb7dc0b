"""Attempts: written before the call, closed once, by attempt id and lease; what they cost moves into their execution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Integer, Row, bindparam, select

from nanobatch_runtime.failpoints import failpoint
from nanobatch_runtime.ids import is_id
from nanobatch_storage import pacing, policy, quota
from nanobatch_storage.adapters import closing_sql, fence_sql, jobs_sql, rows, starting_sql
from nanobatch_storage.adapters.batches import Batches, in_transaction
from nanobatch_storage.adapters.database import Database, Transaction
from nanobatch_storage.adapters.prepared import Prepared
from nanobatch_storage.adapters.tables import ABANDONED, active_executions, attempts, results
from nanobatch_storage.domain import (
    RUNNABLE_EXECUTION_STATES,
    Attempt,
    Bucket,
    Charged,
    Completed,
    Completion,
    EndedCall,
    Execution,
    Failure,
    FailureClass,
    Image,
    LeaseRef,
    Opening,
    ResultState,
    Usage,
)
from nanobatch_storage.errors import LeaseLostError
from nanobatch_storage.policy import BucketEffect
from nanobatch_storage.quota_history import Sent

_LOOK = Prepared(
    select(
        attempts.c.id.label("attempt_id"),
        attempts.c.result_id,
        attempts.c.lease_id,
        attempts.c.charged,
        attempts.c.outcome,
        results.c.user_id,
        results.c.execution_id,
        results.c.lease_id.label("current_lease_id"),
        results.c.state,
    )
    .join(results, results.c.id == attempts.c.result_id)
    # Both ids, for the planner: it does not conclude from a list in one table what the other one's column may be.
    .where(
        attempts.c.id.in_(bindparam("ids", expanding=True)), results.c.id.in_(bindparam("result_ids", expanding=True))
    )
)
# A call that nobody has reported is out: its execution is active.
_BUCKET_OF = Prepared(
    select(active_executions.c.bucket_id).where(
        active_executions.c.execution_id
        == select(results.c.execution_id).where(results.c.id == bindparam("result_id")).scalar_subquery()
    )
)
_HISTORY = Prepared(
    select(attempts.c.start_time, attempts.c.outcome)
    .where(
        attempts.c.bucket_id == bindparam("bucket_id"),
        attempts.c.outcome != "RELEASED",
        attempts.c.start_time >= bindparam("since"),
    )
    .order_by(attempts.c.start_time.desc())
    .limit(bindparam("count", type_=Integer))
)


class SqlLedger:
    """See :class:`nanobatch_storage.ports_queue.Ledger`."""

    def __init__(self, database: Database) -> None:
        """Write to ``database``. Starts, and completions, that come together are done together."""
        self._database = database
        self._starts: Batches[starting_sql.Start, starting_sql.Started] = Batches(
            database, in_transaction(database, starting_sql.start)
        )
        self._completions: Batches[closing_sql.Finished, closing_sql.Done] = Batches(
            database, in_transaction(database, closing_sql.complete)
        )
        self._checks: Batches[tuple[LeaseRef, str], Opening] = Batches(database, self._check)

    async def start(self, lease: LeaseRef, bucket_id: str, ended: EndedCall | None = None) -> str:
        """Open the attempt of a lease and return its id; again the same id. Raises LeaseLostError, WindowFullError."""
        if not is_id(bucket_id):
            raise LeaseLostError
        outcome, told = await self._starts.do((lease, bucket_id, ended))
        if isinstance(outcome, str):
            return outcome
        if isinstance(outcome, LeaseLostError) and ended is not None and not told:
            await self.end_call(ended.lease, ended.attempt_id)
        raise outcome

    async def note_job(self, lease: LeaseRef, attempt_id: str, task_id: str) -> None:
        """Store the id of the task that the open attempt has submitted. Raises LeaseLostError."""

        async def work(tx: Transaction) -> None:
            execution, result, attempt = (await fence_sql.lock(tx, [lease])).of(lease)
            if attempt is None or attempt.id != attempt_id or attempt.charged is not None:
                raise LeaseLostError
            if attempt.job_id is None:
                attempt.job_id = result.job_id = await jobs_sql.add(tx, execution, task_id)
                await rows.save(tx, [result])
                await rows.save(tx, [attempt])

        await self._database.write(work)

    async def end_call(self, lease: LeaseRef, attempt_id: str) -> None:
        """Note that the call has ended: its place in the window is free. Raises LeaseLostError."""

        async def work(tx: Transaction) -> None:
            held = await fence_sql.lock(tx, [lease])
            held.of(lease)
            if await starting_sql.end_calls(tx, held.executions, [EndedCall(lease, attempt_id)]):
                await rows.save(tx, list(held.executions.values()))

        await self._database.write(work)

    async def check(self, lease: LeaseRef, attempt_id: str) -> Opening:
        """Say whether a completion may be stored, and for whom. Raises LeaseLostError.

        A look before the bytes are written; :meth:`complete` checks again.
        """
        return await self._checks.do((lease, attempt_id))

    async def _check(self, asked: Sequence[tuple[LeaseRef, str]]) -> list[Opening | Exception]:
        known = [(lease.result_id, id_) for lease, id_ in asked if is_id(lease.result_id) and is_id(id_)]
        names = {"result_ids": list({result_id for result_id, _ in known}), "ids": list({id_ for _, id_ in known})}
        found = {row.attempt_id: row for row in await self._database.look(_LOOK, names)} if known else {}
        return [_opening(lease, found.get(attempt_id)) for lease, attempt_id in asked]

    async def complete(self, completion: Completion, pictures: Sequence[Image]) -> Completed:
        """Commit a picture under its fence. Raises LeaseLostError."""
        completed, eased = await self._completions.do((completion, pictures))
        failpoint("after_commit")
        if eased is not None:
            await self._ease(*eased)
        return completed

    async def fail(self, lease: LeaseRef, attempt_id: str | None, failure: Failure) -> tuple[ResultState, list[str]]:
        """Close the attempt and decide what follows; returns the state and all executions that changed."""
        effect = policy.effect_of(failure.failure_class)

        async def work(tx: Transaction) -> tuple[ResultState, list[str]]:
            bucket, others = await _lock_around(tx, lease, effect)
            held = await fence_sql.lock(tx, [lease])
            execution, result, attempt = held.of(lease)
            told = closing_sql.told_before(result, attempt, attempt_id, completed=False)
            if told is not None:
                return told, []
            if attempt is not None:
                attempt.outcome, attempt.error_code = failure.failure_class.value, failure.code
                attempt.provider_status = failure.provider_status[:64]
                attempt.provider_response_id = failure.provider_response_id[:255]
                attempt.processing_ms = failure.processing_ms
                closing_sql.settle(tx, execution, result, attempt, (failure.charged, failure.usage))
            if bucket is not None:
                await _refused(tx, bucket, execution, attempt, failure)
            if result.state is ResultState.PROCESSING:
                verdict = policy.judge(result, execution, failure, tx.now)
                closing_sql.apply(tx, execution, result, verdict, failure)
            else:
                result.revision = execution.stamp()
                result.drop_lease()
            touched = [execution.id]
            if effect in policy.PAUSES:
                until = bucket.cooldown_until if bucket and effect is BucketEffect.DAILY_QUOTA else None
                for other in (execution, *(o for o in others if o.id != execution.id)):
                    if other.state in RUNNABLE_EXECUTION_STATES:
                        other.pause(policy.PAUSES[effect], until)
                        touched.append(other.id)
                await rows.save(tx, [o for o in others if o.id != execution.id])
            closing_sql.end_if_done(tx, execution)
            await closing_sql.write(tx, held)
            return result.state, touched

        return await self._database.write(work)

    async def release(self, leases: Sequence[LeaseRef]) -> list[str]:
        """Give leases back that nothing was sent for; returns the executions that changed. Lost ones are left alone."""
        touched = []
        for lease in leases:

            async def work(tx: Transaction, lease: LeaseRef = lease) -> str | None:
                held = await fence_sql.lock(tx, [lease])
                try:
                    execution, result, attempt = held.of(lease)
                except LeaseLostError:
                    return None
                if attempt is not None and attempt.charged is not None:
                    return None
                if attempt is not None and attempt.job_id is not None:  # whoever is next asks for its task
                    result.lease_expires_at = tx.now
                    result.ready_at = tx.now if result.state is ResultState.PROCESSING else None
                    await rows.save(tx, [result])
                    return execution.id
                if attempt is not None:
                    attempt.outcome = "RELEASED"
                    closing_sql.settle(tx, execution, result, attempt, (Charged.NO, Usage()))
                    result.attempts -= 1  # nothing was sent: it was no call
                if result.state is ResultState.PROCESSING:
                    closing_sql.give_back(execution, result)
                    result.ready_at = tx.now
                else:
                    result.drop_lease()
                closing_sql.end_if_done(tx, execution)
                await closing_sql.write(tx, held)
                return execution.id

            changed = await self._database.write(work)
            if changed is not None:
                touched.append(changed)
        return touched

    async def confirm_key(self, bucket_id: str) -> None:
        """Note that the provider took the key: the bucket opens to its window for a day."""

        async def work(tx: Transaction) -> None:
            bucket = await rows.lock_bucket(tx, bucket_id)
            bucket.confirmed_at = tx.now
            await rows.save(tx, [bucket])

        if is_id(bucket_id):
            await self._database.write(work)

    async def close_abandoned(self) -> list[str]:
        """Close attempts whose result is final and whose lease has run out: nobody will report them any more.

        Returns the executions that changed.
        """
        async with self._database.read() as tx:
            query = select(results.c.execution_id).where(ABANDONED, results.c.lease_expires_at <= tx.now).distinct()
            found = [row.execution_id for row in await tx.connection.execute(query)]
        for execution_id in found:

            async def work(tx: Transaction, execution_id: str = execution_id) -> None:
                await closing_sql.close_abandoned(tx, execution_id)

            await self._database.write(work)
        return found

    async def _ease(self, bucket_id: str, out: int) -> None:
        async def work(tx: Transaction) -> None:
            bucket = await rows.lock_bucket(tx, bucket_id)
            pacing.succeeded(bucket, out)
            await rows.save(tx, [bucket])

        await self._database.write(work)


def _opening(lease: LeaseRef, row: Row[Any] | None) -> Opening | LeaseLostError:
    if row is None or (row.result_id, row.lease_id) != (lease.result_id, lease.lease_id):
        return LeaseLostError()
    if row.charged is not None and row.outcome != "COMPLETED":
        return LeaseLostError()
    if row.charged is None and row.current_lease_id != lease.lease_id:
        return LeaseLostError()
    return Opening(row.user_id, row.execution_id, ResultState(row.state) if row.charged else None)


async def _lock_around(tx: Transaction, lease: LeaseRef, effect: BucketEffect) -> tuple[Bucket | None, list[Execution]]:
    """Lock the bucket, and its executions where the effect pauses them, before the result's own: the order of locks."""
    if effect is BucketEffect.NONE or not is_id(lease.result_id):
        return None, []
    bucket_id = (await tx.connection.execute(_BUCKET_OF, {"result_id": lease.result_id})).scalar_one_or_none()
    if bucket_id is None:
        return None, []
    bucket = await rows.lock_bucket(tx, bucket_id)
    if effect not in policy.PAUSES:
        return bucket, []
    active = select(active_executions.c.execution_id).where(active_executions.c.bucket_id == bucket_id)
    found = await rows.lock_executions(tx, [row.execution_id for row in await tx.connection.execute(active)])
    return bucket, [
        one for one in found.values() if one.bucket_id == bucket_id and one.state in RUNNABLE_EXECUTION_STATES
    ]


async def _refused(
    tx: Transaction, bucket: Bucket, execution: Execution, attempt: Attempt | None, failure: Failure
) -> None:
    """Let the bucket learn from a failure that speaks of the key as a whole."""
    effect = policy.effect_of(failure.failure_class)
    history: list[Sent] = []
    out = 0
    if effect is BucketEffect.RATE_LIMITED and attempt is not None:
        names = {"bucket_id": bucket.id, "since": tx.now - quota.HISTORY, "count": quota.MOST_HISTORY}
        found = await tx.connection.execute(_HISTORY, names)
        history = [Sent(row.start_time, row.outcome == FailureClass.RATE_LIMITED.value) for row in found][::-1]
        out = await _calls_out(tx, execution) + 1  # with this one, which has been closed
    sent_at = attempt.start_time if attempt is not None else None
    pacing.refused(bucket, effect, failure, sent_at=sent_at, now=tx.now, out=out, history=history)
    await rows.save(tx, [bucket])


async def _calls_out(tx: Transaction, execution: Execution) -> int:
    """Return how many calls of the execution's bucket are out; those of its own row count as they are in memory."""
    elsewhere = await starting_sql.calls_out(tx, [execution.bucket_id], [execution.id])
    return elsewhere.get(execution.bucket_id, 0) + execution.open_attempts - execution.finishing
