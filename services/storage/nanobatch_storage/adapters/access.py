"""Who may see what, in one place: every query of users' data goes through here."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Table, bindparam, false, select, true

from nanobatch_runtime.ids import is_id
from nanobatch_storage.adapters import rows
from nanobatch_storage.adapters.database import Transaction
from nanobatch_storage.adapters.prepared import Prepared
from nanobatch_storage.adapters.tables import buckets, credentials, executions, users
from nanobatch_storage.domain import Actor, Execution
from nanobatch_storage.errors import ExecutionNotFoundError, UserNotFoundError
from nanobatch_storage.views import ExecutionView


def visible(table: Table, actor: Actor) -> ColumnElement[bool]:
    """Return the condition that keeps the actor to what is theirs; admins see all."""
    return true() if actor.admin else owned(table, actor)


def owned(table: Table, actor: Actor) -> ColumnElement[bool]:
    """Return the condition for what belongs to the actor, admin or not."""
    # PostgreSQL answers a malformed UUID with an error: it must not come that far.
    return table.c.user_id == actor.user_id if is_id(actor.user_id) else false()


# Built once: every step of every watcher asks this, and building it costs as much as asking.
_VIEW = (
    select(*executions.columns, *buckets.columns, credentials.c.record.is_not(None))
    .select_from(
        executions.join(buckets, buckets.c.id == executions.c.bucket_id).outerjoin(
            credentials, credentials.c.id == executions.c.credential_id
        )
    )
    .where(executions.c.id == bindparam("wanted"))
)
_ANY_VIEW, _OWN_VIEW = Prepared(_VIEW), Prepared(_VIEW.where(executions.c.user_id == bindparam("owner")))
_EXECUTION_NAMES = [column.name for column in executions.columns]
_BUCKET_NAMES = [column.name for column in buckets.columns]


async def find_execution(tx: Transaction, actor: Actor, execution_id: str) -> ExecutionView:
    """Return an execution without locking it. Raises ExecutionNotFoundError."""
    if not is_id(execution_id) or not (actor.admin or is_id(actor.user_id)):
        raise ExecutionNotFoundError
    wanted = {"wanted": execution_id}
    if actor.admin:
        found = await tx.connection.execute(_ANY_VIEW, wanted)
    else:
        found = await tx.connection.execute(_OWN_VIEW, {**wanted, "owner": actor.user_id})
    row = found.one_or_none()
    if row is None:
        raise ExecutionNotFoundError
    values, width = list(row), len(_EXECUTION_NAMES)
    has_key = values.pop()
    return ExecutionView(
        execution=rows.execution_from(dict(zip(_EXECUTION_NAMES, values[:width], strict=True))),
        bucket=rows.bucket_from(dict(zip(_BUCKET_NAMES, values[width:], strict=True))),
        has_key=bool(has_key),
    )


async def lock_execution(tx: Transaction, actor: Actor, execution_id: str) -> Execution:
    """Return an execution, locked. Raises ExecutionNotFoundError, without having locked somebody else's."""
    await find_execution(tx, actor, execution_id)
    execution = await rows.lock_execution(tx, execution_id)
    if execution is None:
        raise ExecutionNotFoundError
    return execution


async def lock_user(tx: Transaction, actor: Actor) -> None:
    """Make transactions of one user that need each other's outcome come one after the other. Raises UserNotFoundError.

    First in the order of locks.
    """
    if not is_id(actor.user_id):
        raise UserNotFoundError
    statement = rows.for_update(select(users.c.id).where(users.c.id == actor.user_id))
    if (await tx.connection.execute(statement)).one_or_none() is None:
        raise UserNotFoundError
