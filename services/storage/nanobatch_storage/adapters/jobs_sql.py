"""Providers' tasks that are out: what an attempt has submitted, to be asked for by whoever holds its result."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from sqlalchemy import bindparam, insert, select, update

from nanobatch_storage.adapters.database import Transaction
from nanobatch_storage.adapters.prepared import Prepared
from nanobatch_storage.adapters.tables import jobs
from nanobatch_storage.domain import Attempt, Execution, OpenJob

_TASKS = Prepared(select(jobs.c.id, jobs.c.task_id).where(jobs.c.id.in_(bindparam("ids", expanding=True))))
_END = Prepared(update(jobs).where(jobs.c.id == bindparam("job_id")).values(poll_at=None))


async def add(tx: Transaction, execution: Execution, task_id: str) -> str:
    """Store a task of the execution's provider and return the id of its row."""
    job_id = str(uuid.uuid4())
    await tx.connection.execute(
        insert(jobs).values(
            id=job_id,
            user_id=execution.user_id,
            execution_id=execution.id,
            credential_id=execution.credential_id,
            provider=execution.provider,
            task_id=task_id,
            poll_at=tx.now,
            create_time=tx.now,
        )
    )
    return job_id


async def end(tx: Transaction, attempt: Attempt) -> None:
    """Note that the task of an attempt is not asked for any more, where it had one and is closed."""
    if attempt.job_id is not None and attempt.charged is not None:
        await tx.connection.execute(_END, {"job_id": attempt.job_id})


async def of(tx: Transaction, kept: Mapping[str, Attempt]) -> dict[str, OpenJob]:
    """Return the tasks of open attempts, by the result that ``kept`` names them under."""
    if not kept:
        return {}
    found = await tx.connection.execute(_TASKS, {"ids": [attempt.job_id for attempt in kept.values()]})
    tasks = {row.id: row.task_id for row in found}
    return {
        result_id: OpenJob(attempt.id, tasks[attempt.job_id], tx.now - attempt.start_time)
        for result_id, attempt in kept.items()
        if attempt.job_id in tasks
    }
