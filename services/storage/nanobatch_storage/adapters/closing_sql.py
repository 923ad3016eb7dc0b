"""Closing attempts: with a picture, with a failure, or because their worker is gone. Their costs move into the execution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import timedelta

from sqlalchemy import bindparam, func, select

from nanobatch_runtime.failpoints import failpoint
from nanobatch_storage import pacing, policy
from nanobatch_storage.adapters import fence_sql, jobs_sql, rows
from nanobatch_storage.adapters.credentials_sql import wipe_key_if_done
from nanobatch_storage.adapters.database import Transaction
from nanobatch_storage.adapters.fence_sql import Held
from nanobatch_storage.adapters.prepared import Prepared
from nanobatch_storage.adapters.tables import buckets, images, live_executions, results
from nanobatch_storage.domain import (
    Attempt,
    Bucket,
    Charged,
    Completed,
    Completion,
    Execution,
    ExecutionState,
    Failure,
    Image,
    ImageKind,
    PauseReason,
    Result,
    ResultState,
    Usage,
)
from nanobatch_storage.errors import LeaseLostError
from nanobatch_storage.policy import Next, Verdict

Finished = tuple[Completion, Sequence[Image]]
Eased = tuple[str, int]
"""A bucket whose state a success changes, and how many of its other calls were out then."""
Done = tuple[Completed, Eased | None]
"""What a completion did, and what its success changes, where it does."""

_OUT = (
    select(func.sum(live_executions.c.open_attempts - live_executions.c.finishing))
    .where(live_executions.c.bucket_id == buckets.c.id)
    .scalar_subquery()
)
_IN_USE = Prepared(select(buckets, _OUT.label("out")).where(buckets.c.id.in_(bindparam("ids", expanding=True))))


async def complete(tx: Transaction, finished: Sequence[Finished]) -> list[Done | LeaseLostError]:
    """Commit pictures, each under its own fence; one that was committed before is answered as then."""
    held = await fence_sql.lock(tx, [completion.lease for completion, _ in finished])
    outcomes: list[tuple[Completed, Attempt | None] | LeaseLostError] = []
    for completion, pictures in finished:
        try:
            outcomes.append(_complete(tx, held, completion, pictures))
        except LeaseLostError as error:
            outcomes.append(error)
    closed = [
        (attempt, pictures)
        for (_, pictures), outcome in zip(finished, outcomes, strict=True)
        if not isinstance(outcome, LeaseLostError) and (attempt := outcome[1]) is not None
    ]
    if closed:
        await _add_pictures(tx, [picture for _, pictures in closed for picture in pictures])
        await write(tx, held)
    eased = await _eased(tx, [attempt for attempt, _ in closed])
    for _ in closed:
        failpoint("before_commit")
    return [
        outcome
        if isinstance(outcome, LeaseLostError)
        else (outcome[0], eased.get(outcome[1].id) if outcome[1] else None)
        for outcome in outcomes
    ]


def _complete(
    tx: Transaction, held: Held, completion: Completion, pictures: Sequence[Image]
) -> tuple[Completed, Attempt | None]:
    """Give a result its picture. Returns the attempt that this closes: none where it was closed so before."""
    execution, result, attempt = held.of(completion.lease)
    told = told_before(result, attempt, completion.attempt_id, completed=True)
    if told is not None or attempt is None:
        return Completed(result.state, execution.id, makes_room=False), None
    # A call that was told to have ended gave its place then; what it had reserved is free only now.
    makes_room = attempt.answer_time is None or execution.max_cost_micros is not None
    attempt.processing_ms = round(completion.processing / timedelta(milliseconds=1))
    attempt.provider_response_id = completion.provider_response_id[:255]
    attempt.outcome = "COMPLETED"
    settle(tx, execution, result, attempt, (Charged.YES, completion.usage))
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
    end_if_done(tx, execution)
    return Completed(result.state, execution.id, makes_room), attempt


async def _add_pictures(tx: Transaction, pictures: Sequence[Image]) -> None:
    values = [{f.name: getattr(picture, f.name) for f in fields(picture)} for picture in pictures]
    await tx.connection.execute(rows.insert_of(images), [{**row, "create_time": tx.now} for row in values])


async def _eased(tx: Transaction, closed: Sequence[Attempt]) -> dict[str, Eased]:
    """Return the buckets that a success may change, by the attempts whose success it is. Mostly there is none.

    Buckets are not locked here: that would make all calls queue.
    """
    if not closed:
        return {}
    in_use: dict[str, tuple[Bucket, int]] = {}
    for row in await tx.connection.execute(_IN_USE, {"ids": list({attempt.bucket_id for attempt in closed})}):
        values = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's documented mapping view
        out = int(values.pop("out") or 0)
        in_use[row.id] = (rows.bucket_from(values), out)
    eased: dict[str, Eased] = {}
    for attempt in closed:
        bucket, out = in_use[attempt.bucket_id]
        if pacing.counts(bucket, attempt.id, out):
            eased[attempt.id] = bucket.id, out
    return eased


def end_if_done(tx: Transaction, execution: Execution) -> None:
    """End an execution where what has just been closed was the last thing it waited for."""
    over = execution.max_cost_micros is not None and (
        execution.cost_micros + execution.uncertain_micros > execution.max_cost_micros
    )
    was_final = execution.is_final
    if not execution.close_if_done(tx.now):
        if was_final:
            execution.touch()  # a late answer changed its costs
        elif over and execution.state is not ExecutionState.PAUSED:
            execution.pause(PauseReason.SPEND_CAP)  # a bill above its reservation


async def write(tx: Transaction, held: Held) -> None:
    """Write back what is held, and let go of what nobody needs any more: tasks that are not asked for, unsaved keys."""
    await fence_sql.write(tx, held)
    for attempt in held.attempts.values():
        await jobs_sql.end(tx, attempt)
    for execution in held.executions.values():
        await wipe_key_if_done(tx, execution)


def told_before(
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


def settle(
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


def apply(tx: Transaction, execution: Execution, result: Result, verdict: Verdict, failure: Failure) -> None:
    """Do with a result what policy has decided after a failure: again after a wait, or never."""
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


def give_back(execution: Execution, result: Result) -> None:
    """Take a leased result back to PENDING with its reservation. The caller says when it is ready."""
    execution.reserved_micros -= result.reserved_micros
    result.reserved_micros = 0
    result.drop_lease()
    execution.move(result, ResultState.PENDING)


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
        settle(tx, execution, result, attempt, (Charged.MAYBE, Usage()))
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


async def close_abandoned(tx: Transaction, execution_id: str) -> None:
    """Close the attempts of cancelled results of an execution whose leases ran out."""
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
        settle(tx, execution, result, attempt, (Charged.MAYBE, Usage()))
        await jobs_sql.end(tx, attempt)
        result.drop_lease()
        result.revision = execution.stamp()
    execution.touch()
    await rows.save(tx, lost)
    await rows.save(tx, open_ones)
    await wipe_key_if_done(tx, execution)
    await rows.save(tx, [execution])
