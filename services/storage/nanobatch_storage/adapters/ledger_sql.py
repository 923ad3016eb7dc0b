"""Attempts: written before the call, closed once, by attempt id and lease; what they cost moves into their execution."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime, timedelta

from sqlalchemy import Integer, bindparam, func, insert, select, update

from nanobatch_runtime.failpoints import failpoint
from nanobatch_runtime.ids import is_id
from nanobatch_storage import pacing, policy, quota
from nanobatch_storage.adapters import jobs_sql, rows
from nanobatch_storage.adapters.credentials_sql import wipe_key_if_done
from nanobatch_storage.adapters.database import Database, Transaction
from nanobatch_storage.adapters.tables import ABANDONED, ACTIVE, attempts, buckets, executions, images, results
from nanobatch_storage.domain import (
    RUNNABLE_EXECUTION_STATES,
    Attempt,
    Bucket,
    Charged,
    Completed,
    Completion,
    EndedCall,
    Execution,
    ExecutionState,
    Failure,
    FailureClass,
    Image,
    ImageKind,
    LeaseRef,
    Opening,
    PauseReason,
    Result,
    ResultState,
    Usage,
    WaitReason,
)
from nanobatch_storage.errors import LeaseLostError, WindowFullError
from nanobatch_storage.policy import BucketEffect, Next, Verdict


class SqlLedger:
    """See :class:`nanobatch_storage.ports_queue.Ledger`."""

    def __init__(self, database: Database) -> None:
        """Write to ``database``."""
        self._database = database

    async def start(self, lease: LeaseRef, bucket_id: str, ended: EndedCall | None = None) -> str:
        """Open the attempt of a lease and return its id; again the same id. Raises LeaseLostError, WindowFullError."""

        async def work(tx: Transaction) -> str | LeaseLostError | WindowFullError:
            bucket = await rows.find_bucket(tx, bucket_id)
            if bucket is None:
                raise LeaseLostError
            execution, result, attempt = await _fenced(tx, lease)
            told = ended is not None and await _end_call(tx, execution, ended)
            outcome = await self._start(tx, bucket, execution, result, attempt)
            if told or not isinstance(outcome, WindowFullError):
                await rows.save(tx, [result])
                await rows.save(tx, [execution])
            return outcome

        if not is_id(bucket_id):
            raise LeaseLostError
        try:
            outcome = await self._database.write(work)
        except LeaseLostError:
            if ended is not None:
                await self.end_call(ended.lease, ended.attempt_id)
            raise
        if isinstance(outcome, str):
            return outcome
        raise outcome

    async def _start(
        self, tx: Transaction, bucket: Bucket, execution: Execution, result: Result, attempt: Attempt | None
    ) -> str | LeaseLostError | WindowFullError:
        expired = result.lease_expires_at is None or result.lease_expires_at <= tx.now
        if result.state is not ResultState.PROCESSING or expired:
            return LeaseLostError()
        if attempt is not None and attempt.charged is None:
            # Who asks again has not called yet: it is too late where the execution was stopped meanwhile.
            return attempt.id if execution.state in RUNNABLE_EXECUTION_STATES else LeaseLostError()
        if attempt is not None:
            return LeaseLostError()
        if execution.state not in RUNNABLE_EXECUTION_STATES or execution.bucket_id != bucket.id:
            return _send_back(tx, execution, result)  # paused, or another key since: this lease carries the old one
        return await self._open(tx, bucket, execution, result)

    async def _open(
        self, tx: Transaction, bucket: Bucket, execution: Execution, result: Result
    ) -> str | LeaseLostError | WindowFullError:
        """Open an attempt where window and pace of the bucket let its call start now."""
        out = await _calls_out(tx, execution)
        start_at = await _next_start(tx, bucket, out)
        if start_at > tx.now + _HELD:  # a waiting prompt holds no worker slot
            return _send_back(tx, execution, result)
        if out >= bucket.calls_allowed(tx.now):
            return WindowFullError()
        if start_at > tx.now + quota.EARLY:
            return WindowFullError(start_at - quota.EARLY - tx.now)
        new = Attempt(
            id=str(uuid.uuid4()),
            user_id=result.user_id,
            execution_id=execution.id,
            result_id=result.id,
            bucket_id=execution.bucket_id,
            job_id=None,
            lease_id=result.lease_id or "",
            model=execution.model,
            reserved_micros=result.reserved_micros,
            start_time=start_at,
        )
        result.reserved_micros = 0
        execution.open_attempts += 1
        await rows.add(tx, [new])
        return new.id

    async def note_job(self, lease: LeaseRef, attempt_id: str, task_id: str) -> None:
        """Store the id of the task that the open attempt has submitted. Raises LeaseLostError."""

        async def work(tx: Transaction) -> None:
            execution, result, attempt = await _fenced(tx, lease)
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
            execution, _, _ = await _fenced(tx, lease)
            if await _end_call(tx, execution, EndedCall(lease, attempt_id)):
                await rows.save(tx, [execution])

        await self._database.write(work)

    async def check(self, lease: LeaseRef, attempt_id: str) -> Opening:
        """Say whether a completion may be stored, and for whom. Raises LeaseLostError.

        A look before the bytes are written; :meth:`complete` checks again.
        """
        if not (is_id(lease.result_id) and is_id(lease.lease_id)):
            raise LeaseLostError
        async with self._database.read() as tx:
            names = {"result_id": lease.result_id, "lease_id": lease.lease_id}
            row = (await tx.connection.execute(_LOOK, names)).one_or_none()
        if row is None or row.attempt_id != attempt_id:
            raise LeaseLostError
        if row.charged is not None and row.outcome != "COMPLETED":
            raise LeaseLostError
        if row.charged is None and row.lease_id != lease.lease_id:
            raise LeaseLostError
        return Opening(row.user_id, row.execution_id, ResultState(row.state) if row.charged else None)

    async def complete(self, completion: Completion, pictures: Sequence[Image]) -> Completed:
        """Commit a picture under its fence. Raises LeaseLostError."""

        async def work(tx: Transaction) -> tuple[Completed, Execution | None]:
            execution, result, attempt = await _fenced(tx, completion.lease)
            done = _told_before(result, attempt, completion.attempt_id, completed=True)
            if done is not None or attempt is None:
                return Completed(done or result.state, execution.id, makes_room=False), None
            # A call that was told to have ended gave its place then; what it had reserved is free only now.
            makes_room = attempt.answer_time is None or execution.max_cost_micros is not None
            attempt.processing_ms = round(completion.processing / timedelta(milliseconds=1))
            attempt.provider_response_id = completion.provider_response_id[:255]
            attempt.outcome = "COMPLETED"
            _settle(tx, execution, result, attempt, (Charged.YES, completion.usage))
            by_kind = {picture.kind: picture for picture in pictures}
            master = by_kind[ImageKind.MASTER]
            shown = by_kind.get(ImageKind.DERIVED, master)
            thumbnail = by_kind.get(ImageKind.THUMBNAIL)
            result.master_image_id, result.image_id = master.id, shown.id
            result.thumbnail_image_id = thumbnail.id if thumbnail else None
            result.width, result.height = shown.width, shown.height
            result.mime_type, result.sha256 = shown.mime_type, shown.sha256
            result.processing_ms = attempt.processing_ms
            result.clear_error()
            result.ready_at = None
            result.drop_lease()
            # A picture that arrives for a cancelled result is kept with its cost; the state stays.
            late = result.state is ResultState.CANCELLED
            execution.move(result, ResultState.CANCELLED if late else ResultState.COMPLETED)
            await tx.connection.execute(
                insert(images),
                [
                    {**{f.name: getattr(picture, f.name) for f in fields(picture)}, "create_time": tx.now}
                    for picture in pictures
                ],
            )
            await _close(tx, execution, result, attempt)
            eased = await _is_bucket_to_ease(tx, execution.bucket_id, attempt)
            failpoint("before_commit")
            return Completed(result.state, execution.id, makes_room), execution if eased else None

        completed, execution = await self._database.write(work)
        failpoint("after_commit")
        if execution is not None:
            await self._ease(execution.bucket_id)
        return completed

    async def fail(self, lease: LeaseRef, attempt_id: str | None, failure: Failure) -> tuple[ResultState, list[str]]:
        """Close the attempt and decide what follows; returns the state and all executions that changed."""
        effect = policy.effect_of(failure.failure_class)

        async def work(tx: Transaction) -> tuple[ResultState, list[str]]:
            bucket, others = await _lock_around(tx, lease, effect)
            execution, result, attempt = await _fenced(tx, lease)
            told = _told_before(result, attempt, attempt_id, completed=False)
            if told is not None:
                return told, []
            if attempt is not None:
                attempt.outcome, attempt.error_code = failure.failure_class.value, failure.code
                attempt.provider_status = failure.provider_status[:64]
                attempt.provider_response_id = failure.provider_response_id[:255]
                attempt.processing_ms = failure.processing_ms
                _settle(tx, execution, result, attempt, (failure.charged, failure.usage))
            if bucket is not None:
                await _refused(tx, bucket, execution, attempt, failure)
            if result.state is ResultState.PROCESSING:
                verdict = policy.judge(result, execution, failure, tx.now)
                _apply(execution, result, verdict, failure, tx)
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
            await _close(tx, execution, result, attempt)
            return result.state, touched

        return await self._database.write(work)

    async def release(self, leases: Sequence[LeaseRef]) -> list[str]:
        """Give leases back that nothing was sent for; returns the executions that changed. Lost ones are left alone."""
        touched = []
        for lease in leases:

            async def work(tx: Transaction, lease: LeaseRef = lease) -> str | None:
                try:
                    execution, result, attempt = await _fenced(tx, lease)
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
                    _settle(tx, execution, result, attempt, (Charged.NO, Usage()))
                    result.attempts -= 1  # nothing was sent: it was no call
                if result.state is ResultState.PROCESSING:
                    give_back(execution, result)
                    result.ready_at = tx.now
                else:
                    result.drop_lease()
                await _close(tx, execution, result, attempt)
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
                execution = await rows.lock_execution(tx, execution_id)
                if execution is None:
                    return
                lost = await rows.lock_results(
                    tx,
                    (results.c.execution_id == execution_id)
                    & (results.c.state == ResultState.CANCELLED)
                    & (results.c.lease_expires_at <= tx.now),
                )
                by_id = {result.id: result for result in lost}
                open_ones = await rows.open_attempts(tx, by_id)
                for attempt in open_ones:
                    result = by_id[attempt.result_id]
                    attempt.outcome = "CRASHED"
                    _settle(tx, execution, result, attempt, (Charged.MAYBE, Usage()))
                    await jobs_sql.end(tx, attempt)
                    result.drop_lease()
                    result.revision = execution.stamp()
                execution.touch()
                await rows.save(tx, lost)
                await rows.save(tx, open_ones)
                await wipe_key_if_done(tx, execution)
                await rows.save(tx, [execution])

            await self._database.write(work)
        return found

    async def _ease(self, bucket_id: str) -> None:
        async def work(tx: Transaction) -> None:
            bucket = await rows.lock_bucket(tx, bucket_id)
            pacing.succeeded(bucket)
            await rows.save(tx, [bucket])

        await self._database.write(work)


async def _end_call(tx: Transaction, execution: Execution, ended: EndedCall) -> bool:
    """Note the end of a call of ``execution``; returns whether it was news. What is not its open attempt tells nothing."""
    if not all(map(is_id, (ended.attempt_id, ended.lease.lease_id, ended.lease.result_id))):
        return False
    names = {
        "attempt_id": ended.attempt_id,
        "ended_lease_id": ended.lease.lease_id,
        "ended_result_id": ended.lease.result_id,
        "of_execution_id": execution.id,
        "at": tx.now,
    }
    is_news = (await tx.connection.execute(_END_CALL, names)).rowcount == 1
    execution.finishing += is_news
    return is_news


async def close_lost(
    tx: Transaction, execution: Execution, lost: Sequence[Result]
) -> tuple[set[str], dict[str, Attempt]]:
    """Close the attempts of leases that ran out, before their results are leased anew.

    The calls may have been carried out: they close as MAYBE. Returns the results that end here (policy), failed, and by
    result the attempts that stay open, because their task is out and can be asked for.
    """
    failed: set[str] = set()
    kept: dict[str, Attempt] = {}
    for result in lost:
        execution.reserved_micros -= result.reserved_micros
        result.reserved_micros = 0
    by_id = {result.id: result for result in lost}
    open_ones = await rows.open_attempts(tx, by_id) if lost else []
    for attempt in open_ones:
        result = by_id[attempt.result_id]
        if attempt.job_id is not None:
            kept[result.id] = attempt
            continue
        attempt.outcome = "CRASHED"
        _settle(tx, execution, result, attempt, (Charged.MAYBE, Usage()))
        if policy.judge_crash(result, execution).next is Next.FAILED:
            endless = result.crashes >= policy.MAX_CRASHES
            result.error_code = "WORKER_LOST" if endless else "OUTCOME_UNKNOWN"
            result.error_message = (
                f"Generators died during {policy.MAX_CRASHES} calls for this prompt, which may have been charged."
                if endless
                else "The generator died during the call, which may have been charged; it is not repeated, as asked."
            )
            result.error_retryable, result.error_charged = True, Charged.MAYBE
            result.ready_at = None
            result.drop_lease()
            execution.move(result, ResultState.FAILED)
            failed.add(result.id)
    await rows.save(tx, open_ones)
    return failed, kept


def give_back(execution: Execution, result: Result) -> None:
    """Take a leased result back to PENDING with its reservation. The caller says when it is ready."""
    execution.reserved_micros -= result.reserved_micros
    result.reserved_micros = 0
    result.drop_lease()
    execution.move(result, ResultState.PENDING)


_OWNER = select(results.c.execution_id).where(results.c.id == bindparam("result_id")).scalar_subquery()
_EXECUTION = select(executions).where(executions.c.id == _OWNER)
_END_CALL = (
    update(attempts)
    .where(
        attempts.c.id == bindparam("attempt_id"),
        attempts.c.lease_id == bindparam("ended_lease_id"),
        attempts.c.result_id == bindparam("ended_result_id"),
        attempts.c.execution_id == bindparam("of_execution_id"),
        attempts.c.charged.is_(None),
        attempts.c.answer_time.is_(None),
    )
    .values(answer_time=bindparam("at"))
)
_LOOK = (
    select(
        results.c.user_id,
        results.c.execution_id,
        results.c.lease_id,
        results.c.state,
        attempts.c.id.label("attempt_id"),
        attempts.c.charged,
        attempts.c.outcome,
    )
    .join(attempts, attempts.c.result_id == results.c.id)
    .where(results.c.id == bindparam("result_id"), attempts.c.lease_id == bindparam("lease_id"))
)
_LOCKED_EXECUTION = rows.for_update(_EXECUTION)
# The result and, where one was opened under this lease, its attempt. Only the result is locked: attempts change under the
# lock of their execution alone, which is held by then.
_LOCKED_RESULT = (
    select(results, *(column.label(f"attempt_{column.name}") for column in attempts.c))
    .outerjoin(attempts, (attempts.c.lease_id == bindparam("lease_id")) & (attempts.c.result_id == results.c.id))
    .where(results.c.id == bindparam("result_id"))
    .with_for_update(key_share=True, of=results)
)
_CALLS_OUT = select(func.sum(executions.c.open_attempts - executions.c.finishing)).where(
    executions.c.bucket_id == bindparam("bucket_id"), executions.c.id != bindparam("id"), ACTIVE
)
_BUCKET_IN_USE = select(
    buckets,
    select(func.sum(executions.c.open_attempts - executions.c.finishing))
    .where(executions.c.bucket_id == bindparam("bucket_id"), ACTIVE)
    .scalar_subquery()
    .label("out"),
).where(buckets.c.id == bindparam("bucket_id"))
_OF_BUCKET = select(attempts.c.start_time, attempts.c.outcome).where(
    attempts.c.bucket_id == bindparam("bucket_id"), attempts.c.outcome != "RELEASED"
)
_LATEST = _OF_BUCKET.order_by(attempts.c.start_time.desc()).limit(2)
_HISTORY = (
    _OF_BUCKET.where(attempts.c.start_time >= bindparam("since"))
    .order_by(attempts.c.start_time.desc())
    .limit(bindparam("count", type_=Integer))
)
_USED = select(func.count()).where(
    attempts.c.bucket_id == bindparam("bucket_id"),
    attempts.c.start_time >= bindparam("since"),
    attempts.c.outcome.not_in(["RELEASED", FailureClass.RATE_LIMITED.value]),
)
_NOT_REPORTED = frozenset({"CRASHED", "RELEASED"})
"""How attempts end that no worker reported the end of a call for: nothing more may be said about them."""
_HELD = timedelta(seconds=1.5)
"""A start that lies further ahead is not waited for with the lease in hand."""


async def _fenced(tx: Transaction, lease: LeaseRef) -> tuple[Execution, Result, Attempt | None]:
    """Return execution, result and attempt of a lease that is still the current one, locked in that order."""
    if not (is_id(lease.result_id) and is_id(lease.lease_id)):
        raise LeaseLostError
    row = (await tx.connection.execute(_LOCKED_EXECUTION, {"result_id": lease.result_id})).one_or_none()
    if row is None:
        raise LeaseLostError
    names = {"result_id": lease.result_id, "lease_id": lease.lease_id}
    both = (await tx.connection.execute(_LOCKED_RESULT, names)).one_or_none()
    if both is None:
        raise LeaseLostError
    result, attempt = rows.result_and_attempt_from(both)
    # A commit whose answer was lost has dropped the lease: its attempt knows it.
    told_before = attempt is not None and attempt.charged is not None and attempt.outcome not in _NOT_REPORTED
    if result.lease_id != lease.lease_id and not told_before:
        raise LeaseLostError
    return rows.execution_from(row), result, attempt


def _told_before(
    result: Result, attempt: Attempt | None, attempt_id: str | None, *, completed: bool
) -> ResultState | None:
    """Return the state to answer a repeat with, None for a first report. Raises LeaseLostError for what did not happen."""
    if (attempt.id if attempt else None) != attempt_id:
        raise LeaseLostError
    if attempt is None or attempt.charged is None:
        return None
    if (attempt.outcome == "COMPLETED") != completed:
        raise LeaseLostError
    return result.state


def _settle(
    tx: Transaction, execution: Execution, result: Result, attempt: Attempt, bill: tuple[Charged, Usage]
) -> None:
    """Close an attempt: its reservation becomes what it cost, or may have cost."""
    charged, usage = bill
    attempt.charged, attempt.end_time = charged, tx.now
    attempt.input_tokens = usage.input_tokens
    attempt.text_output_tokens, attempt.image_output_tokens = usage.text_output_tokens, usage.image_output_tokens
    attempt.usage_reported = usage.reported
    result.job_id = None
    execution.open_attempts -= 1
    if attempt.answer_time is not None:
        execution.finishing -= 1
    execution.reserved_micros -= attempt.reserved_micros
    result.attempts += 1
    if charged is Charged.MAYBE and not usage.reported:
        # Nobody knows: the worst case counts as spent.
        execution.uncertain_micros += attempt.reserved_micros
        result.uncertain_micros += attempt.reserved_micros
    elif charged is not Charged.NO:
        attempt.cost_micros = usage.cost_micros
        execution.cost_micros += usage.cost_micros
        result.cost_micros += usage.cost_micros


def _apply(execution: Execution, result: Result, verdict: Verdict, failure: Failure, tx: Transaction) -> None:
    if verdict.next is Next.AGAIN:
        give_back(execution, result)
        result.ready_at = tx.now + verdict.wait
        return
    execution.reserved_micros -= result.reserved_micros
    result.reserved_micros = 0
    result.error_code, result.error_message = failure.code, failure.message
    result.error_retryable, result.error_charged = verdict.retryable, failure.charged
    result.processing_ms = failure.processing_ms
    result.ready_at = None
    result.drop_lease()
    execution.move(result, ResultState.FAILED)


async def _close(tx: Transaction, execution: Execution, result: Result, attempt: Attempt | None) -> None:
    """Write everything back, and end the execution where this was the last thing it waited for."""
    over = execution.max_cost_micros is not None and (
        execution.cost_micros + execution.uncertain_micros > execution.max_cost_micros
    )
    was_final = execution.is_final
    if not execution.close_if_done(tx.now):
        if was_final:
            execution.touch()  # a late answer changed its costs
        elif over and execution.state is not ExecutionState.PAUSED:
            execution.pause(PauseReason.SPEND_CAP)  # a bill above its reservation
    await rows.save(tx, [result])
    if attempt is not None:
        await rows.save(tx, [attempt])
        await jobs_sql.end(tx, attempt)
    await wipe_key_if_done(tx, execution)
    await rows.save(tx, [execution])


async def _lock_around(tx: Transaction, lease: LeaseRef, effect: BucketEffect) -> tuple[Bucket | None, list[Execution]]:
    """Lock the bucket, and its executions where the effect pauses them, before the result's own: the order of locks."""
    if effect is BucketEffect.NONE or not is_id(lease.result_id):
        return None, []
    found_execution = (await tx.connection.execute(_EXECUTION, {"result_id": lease.result_id})).one_or_none()
    bucket_id = None if found_execution is None else found_execution.bucket_id
    if bucket_id is None:
        return None, []
    bucket = await rows.lock_bucket(tx, bucket_id)
    if effect not in policy.PAUSES:
        return bucket, []
    runnable = select(executions).where(
        executions.c.bucket_id == bucket_id, executions.c.state.in_(list(RUNNABLE_EXECUTION_STATES))
    )
    found = await tx.connection.execute(rows.for_update(runnable.order_by(executions.c.id)))
    return bucket, [rows.execution_from(row) for row in found]


async def _calls_out(tx: Transaction, execution: Execution) -> int:
    """Return how many calls of the execution's bucket are out; those of its own row count as they are in memory."""
    names = {"bucket_id": execution.bucket_id, "id": execution.id}
    others = (await tx.connection.execute(_CALLS_OUT, names)).scalar()
    return int(others or 0) + execution.open_attempts - execution.finishing


async def _next_start(tx: Transaction, bucket: Bucket, out: int) -> datetime:
    """Return when the bucket's next call may start. Nothing is asked of the database while there is no pace to keep."""
    if not quota.is_paced(bucket, out, tx.now):
        return tx.now
    start_at = quota.next_start(bucket, await traffic_of(tx, bucket, out), tx.now)
    if start_at > tx.now + _HELD and not bucket.is_cooling(tx.now):
        pacing.cool(bucket, start_at, WaitReason.PACED)  # so that nobody asks before, and readers are told
        await rows.save(tx, [bucket])
    return start_at


async def traffic_of(tx: Transaction, bucket: Bucket, out: int) -> quota.Traffic:
    """Return the latest starts of a bucket."""
    found = await tx.connection.execute(_LATEST, {"bucket_id": bucket.id})
    last, before, *_ = [*(row.start_time for row in found), None, None]
    began, used = quota.period_start(bucket, tx.now), 0
    if began is not None:
        used = (await tx.connection.execute(_USED, {"bucket_id": bucket.id, "since": began})).scalar_one()
    return quota.Traffic(out, last, before, used)


async def _refused(
    tx: Transaction, bucket: Bucket, execution: Execution, attempt: Attempt | None, failure: Failure
) -> None:
    """Let the bucket learn from a failure that speaks of the key as a whole."""
    effect = policy.effect_of(failure.failure_class)
    history: list[quota.Sent] = []
    out = 0
    if effect is BucketEffect.RATE_LIMITED and attempt is not None:
        names = {"bucket_id": bucket.id, "since": tx.now - quota.HISTORY, "count": quota.MOST_HISTORY}
        found = await tx.connection.execute(_HISTORY, names)
        history = [quota.Sent(row.start_time, row.outcome == FailureClass.RATE_LIMITED.value) for row in found][::-1]
        out = await _calls_out(tx, execution) + 1  # with this one, which has been closed
    sent_at = attempt.start_time if attempt is not None else None
    pacing.refused(bucket, effect, failure, sent_at=sent_at, now=tx.now, out=out, history=history)
    await rows.save(tx, [bucket])


def _send_back(tx: Transaction, execution: Execution, result: Result) -> LeaseLostError:
    give_back(execution, result)
    result.ready_at = tx.now
    return LeaseLostError()


async def _is_bucket_to_ease(tx: Transaction, bucket_id: str, attempt: Attempt) -> bool:
    """Whether a success may change the bucket. Mostly it does not, and a lock on it would make all calls queue."""
    row = (await tx.connection.execute(_BUCKET_IN_USE, {"bucket_id": bucket_id})).one()
    values = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's documented mapping view
    out = int(values.pop("out") or 0)
    return pacing.counts(rows.bucket_from(values), attempt.id, out)
