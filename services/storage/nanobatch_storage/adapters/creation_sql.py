"""Creating an execution: everything it needs is checked and written in one transaction."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from sqlalchemy import Table, insert, select, update

from nanobatch_runtime.errors import FieldViolation, InvalidArgumentError
from nanobatch_runtime.ids import is_id
from nanobatch_storage.adapters import rows
from nanobatch_storage.adapters.access import lock_user, owned
from nanobatch_storage.adapters.credentials_sql import add_credential, ensure_bucket
from nanobatch_storage.adapters.database import Transaction
from nanobatch_storage.adapters.tables import executions, images, workflows
from nanobatch_storage.domain import (
    KEYLESS_PROVIDER,
    Actor,
    Execution,
    ExecutionState,
    NewExecution,
    Result,
    ResultState,
)
from nanobatch_storage.errors import RequestIdReusedError

DEFAULT_WORKFLOW = "Batch Nano Banana"


async def create_execution(tx: Transaction, actor: Actor, new: NewExecution, window: float) -> tuple[Execution, bool]:
    """See :meth:`nanobatch_storage.ports.Executions.create`."""
    # One creation of a user at a time: what follows looks before it writes (request id, default workflow).
    await lock_user(tx, actor)
    if new.request_id is not None and is_id(new.request_id):
        statement = select(executions).where(owned(executions, actor), executions.c.request_id == new.request_id)
        row = (await tx.connection.execute(statement)).one_or_none()
        if row is not None:
            if row.request_hash != new.request_hash:
                raise RequestIdReusedError
            return rows.execution_from(row), False
    violations = [*_plain_violations(new), *await _image_violations(tx, actor, new)]
    violations += await _foreign(tx, actor, workflows, "workflow_id", new.workflow_id)
    violations += await _foreign(tx, actor, executions, "parent_execution_id", new.parent_execution_id)
    if violations:
        raise InvalidArgumentError("The request cannot be carried out as it is.", violations=violations)
    bucket_id = await ensure_bucket(tx, new.provider, new.model, new.fingerprint, window)
    if new.credential is not None:
        await add_credential(tx, actor.user_id, new.provider, new.credential)
    workflow_id = new.workflow_id or await _default_workflow(tx, actor)
    execution = _execution(tx, actor, new, workflow_id, bucket_id)
    await rows.add(tx, [execution])
    # Every row has a revision of its own: one number on several rows would be a gap for a watcher cut between them.
    await rows.add(tx, list(_results(tx, actor, new, execution.id)))
    return execution, True


def _plain_violations(new: NewExecution) -> Iterator[FieldViolation]:
    if new.request_id is not None and not is_id(new.request_id):
        yield FieldViolation("request_id", "A request id is a UUID in lower case.", "BAD_ID")
    if not new.prompts or any(prompt.variations < 1 for prompt in new.prompts):
        yield FieldViolation("prompts", "An execution wants at least one picture of each of its prompts.", "REQUIRED")
    if new.credential is None and new.provider != KEYLESS_PROVIDER:
        yield FieldViolation("api_key", "Models of this provider need a key.", "REQUIRED")


async def _image_violations(tx: Transaction, actor: Actor, new: NewExecution) -> list[FieldViolation]:
    """Name every image that is not the user's; the others stay from now on."""
    wanted: list[tuple[str, str]] = []
    for j, image_id in enumerate(new.settings.reference_image_ids):
        wanted.append((f"reference_image_ids[{j}]", image_id))
    for i, prompt in enumerate(new.prompts):
        if prompt.source_image_id is not None:
            wanted.append((f"prompts[{i}].source_image_id", prompt.source_image_id))
        for j, image_id in enumerate(prompt.reference_image_ids):
            wanted.append((f"prompts[{i}].reference_image_ids[{j}]", image_id))
    ids = {image_id for _, image_id in wanted if is_id(image_id)}
    found: set[str] = set()
    if ids:
        # Update and look in one statement: the sweeper cannot remove a row between the two.
        statement = update(images).where(images.c.id.in_(ids), owned(images, actor)).values(expire_time=None)
        found = {row.id for row in await tx.connection.execute(statement.returning(images.c.id))}
    return [
        FieldViolation(path, "There is no such image.", "NOT_FOUND")
        for path, image_id in wanted
        if image_id not in found
    ]


async def _foreign(
    tx: Transaction, actor: Actor, table: Table, path: str, thing_id: str | None
) -> list[FieldViolation]:
    if thing_id is None:
        return []
    if is_id(thing_id):
        statement = select(table.c.id).where(table.c.id == thing_id, owned(table, actor))
        if (await tx.connection.execute(statement)).one_or_none() is not None:
            return []
    what = "workflow" if table is workflows else "execution"
    return [FieldViolation(path, f"There is no such {what}.", "NOT_FOUND")]


async def _default_workflow(tx: Transaction, actor: Actor) -> str:
    statement = select(workflows.c.id).where(owned(workflows, actor), workflows.c.is_default)
    found = (await tx.connection.execute(statement)).scalar_one_or_none()
    if found is None:
        found = str(uuid.uuid4())
        await tx.connection.execute(
            insert(workflows).values(
                id=found,
                user_id=actor.user_id,
                name=DEFAULT_WORKFLOW,
                is_default=True,
                config={},
                create_time=tx.now,
            )
        )
    return str(found)


def _execution(tx: Transaction, actor: Actor, new: NewExecution, workflow_id: str, bucket_id: str) -> Execution:
    total = sum(prompt.variations for prompt in new.prompts)
    return Execution(
        id=str(uuid.uuid4()),
        user_id=actor.user_id,
        workflow_id=workflow_id,
        parent_execution_id=new.parent_execution_id,
        request_id=new.request_id,
        request_hash=new.request_hash,
        state=ExecutionState.PENDING,
        pause_reason=None,
        resume_time=None,
        cancel_requested=False,
        model=new.model,
        provider=new.provider,
        mode=new.mode,
        settings=new.settings,
        labels=new.labels,
        credential_id=new.credential.id if new.credential else None,
        bucket_id=bucket_id,
        total=total,
        pending=total,
        processing=0,
        completed=0,
        failed=0,
        cancelled=0,
        open_attempts=0,
        finishing=0,
        cost_micros=0,
        uncertain_micros=0,
        reserved_micros=0,
        reservation_micros=new.reservation_micros,
        estimated_cost_micros=new.estimated_cost_micros,
        max_cost_micros=new.max_cost_micros,
        revision=total + 1,
        own_revision=total + 1,
        create_time=tx.now,
        start_time=None,
        end_time=None,
        origin_request_id=new.origin_request_id,
        origin_traceparent=new.origin_traceparent,
    )


def _results(tx: Transaction, actor: Actor, new: NewExecution, execution_id: str) -> Iterator[Result]:
    revision = 0
    for batch_index, prompt in enumerate(new.prompts):
        for variation in range(prompt.variations):
            revision += 1
            yield Result(
                id=str(uuid.uuid4()),
                execution_id=execution_id,
                user_id=actor.user_id,
                batch_index=batch_index,
                variation=variation,
                prompt_text=prompt.text,
                source_image_id=prompt.source_image_id,
                reference_image_ids=prompt.reference_image_ids or new.settings.reference_image_ids,
                state=ResultState.PENDING,
                revision=revision,
                ready_at=tx.now,
                lease_id=None,
                lease_expires_at=None,
                reserved_micros=0,
                job_id=None,
                attempts=0,
                failures=0,
                unknowns=0,
                damaged=0,
                empties=0,
                crashes=0,
                overloads=0,
                overloaded_since=None,
                image_id=None,
                master_image_id=None,
                thumbnail_image_id=None,
                width=0,
                height=0,
                mime_type="",
                sha256="",
                error_code="",
                error_message="",
                error_retryable=False,
                error_charged=None,
                processing_ms=None,
                cost_micros=0,
                uncertain_micros=0,
            )
