"""Another try on the same rows."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import insert, select

from nanobatch_catalog import find_model, worst_case_micros
from nanobatch_runtime.errors import FailedPreconditionError, FieldViolation, InvalidArgumentError
from nanobatch_runtime.ids import is_id
from nanobatch_storage.adapters import rows
from nanobatch_storage.adapters.access import find_execution, lock_execution, lock_user
from nanobatch_storage.adapters.credentials_sql import lock_bucket_for, take_key
from nanobatch_storage.adapters.database import Transaction
from nanobatch_storage.adapters.tables import results, retry_requests
from nanobatch_storage.domain import Actor, Execution, Result, ResultState
from nanobatch_storage.errors import RequestIdReusedError
from nanobatch_storage.views import Retry

_RETRIABLE = (ResultState.FAILED, ResultState.CANCELLED)


async def retry_execution(
    tx: Transaction, actor: Actor, execution_id: str, retry: Retry, window: float
) -> tuple[Execution, int]:
    """See :meth:`nanobatch_storage.ports.Control.retry`."""
    seen = (await find_execution(tx, actor, execution_id)).execution
    if retry.request_id is not None:
        if not is_id(retry.request_id):
            violation = FieldViolation("request_id", "A request id is a UUID in lower case.", "BAD_ID")
            raise InvalidArgumentError("The request cannot be carried out as it is.", violations=[violation])
        await lock_user(tx, actor)  # one at a time: the id is looked up before it is written
        told = await _told_before(tx, actor, retry.request_id)
        if told is not None:
            if told != (seen.id, retry.request_hash, told[2]):
                raise RequestIdReusedError
            return (await find_execution(tx, actor, execution_id)).execution, told[2]
    bucket = await lock_bucket_for(tx, seen, retry.credential, window)
    execution = await lock_execution(tx, actor, execution_id)
    chosen = await _choose(tx, execution, retry)
    await take_key(tx, execution, retry.credential, bucket)
    edits = dict(retry.edits)
    for result in chosen:
        if result.id in edits:
            result.prompt_text = edits[result.id]
            execution.reservation_micros = max(execution.reservation_micros, _worst_case(execution, result))
        _start_over(execution, result, tx.now)
    execution.cancel_requested = False
    execution.end_time = None
    execution.resume()
    await rows.save(tx, chosen)
    await rows.save(tx, [execution])
    if retry.request_id is not None:
        await tx.connection.execute(
            insert(retry_requests).values(
                user_id=actor.user_id,
                request_id=retry.request_id,
                execution_id=execution.id,
                request_hash=retry.request_hash,
                retried=len(chosen),
            )
        )
    return execution, len(chosen)


async def _told_before(tx: Transaction, actor: Actor, request_id: str) -> tuple[str, str, int] | None:
    statement = select(retry_requests).where(
        retry_requests.c.user_id == actor.user_id, retry_requests.c.request_id == request_id
    )
    row = (await tx.connection.execute(statement)).one_or_none()
    return None if row is None else (row.execution_id, row.request_hash, row.retried)


async def _choose(tx: Transaction, execution: Execution, retry: Retry) -> list[Result]:
    """Lock the results that are to be tried again; in the order of the prompts."""
    ours = results.c.execution_id == execution.id
    if retry.result_ids:
        wanted = {result_id for result_id in retry.result_ids if is_id(result_id)}
        found = await rows.lock_results(tx, ours & results.c.id.in_(wanted))
    else:
        found = await rows.lock_results(tx, ours & (results.c.state == ResultState.FAILED))
    by_id = {result.id: result for result in found}
    violations = []
    for i, result_id in enumerate(retry.result_ids):
        path = f"result_ids[{i}]"
        if result_id not in by_id:
            violations.append(FieldViolation(path, "There is no such result in this execution.", "NOT_FOUND"))
        elif by_id[result_id].state not in _RETRIABLE:
            text = f"The result is {by_id[result_id].state}; only FAILED and CANCELLED ones can be retried."
            violations.append(FieldViolation(path, text, "NOT_RETRIABLE"))
    for i, (result_id, _) in enumerate(retry.edits):
        if result_id not in by_id:
            text = "Only the prompt of a result that is retried can be changed."
            violations.append(FieldViolation(f"edits[{i}].result_id", text, "NOT_RETRIED"))
    if violations:
        raise InvalidArgumentError("The request cannot be carried out as it is.", violations=violations)
    if not found:
        raise FailedPreconditionError("No result of this execution has failed.", reason="NOTHING_TO_RETRY")
    if await rows.open_attempts(tx, by_id):
        text = "A call of one of these results is still out; its picture may still come. Try again when it has ended."
        raise FailedPreconditionError(text, reason="CALL_STILL_OPEN")
    return sorted(found, key=lambda result: (result.batch_index, result.variation))


def _worst_case(execution: Execution, result: Result) -> int:
    """Return what a call with the result's words can cost at most; 0 where the catalogue no longer knows the model."""
    model = find_model(execution.model)
    if model is None:
        return 0
    settings = execution.settings
    words = (settings.prompt_prefix, result.prompt_text, settings.prompt_suffix)
    return worst_case_micros(
        model,
        image_size=settings.output.image_size,
        prompt_characters=sum(len(part) + 1 for part in words if part),
        input_images=len(result.reference_image_ids or settings.reference_image_ids) + bool(result.source_image_id),
    )


def _start_over(execution: Execution, result: Result, now: datetime) -> None:
    """Forget what counted against the result; what it cost, and how often it was called, stays."""
    result.failures = result.unknowns = result.damaged = result.empties = result.crashes = result.overloads = 0
    result.overloaded_since = None
    result.clear_error()
    result.drop_lease()
    result.ready_at = now
    execution.move(result, ResultState.PENDING)
