"""What a user may do to an execution: cancel, pause, resume, retry, delete."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, func, select

from nanobatch_storage.adapters import rows
from nanobatch_storage.adapters.access import find_execution, lock_execution
from nanobatch_storage.adapters.credentials_sql import lock_bucket_for, take_key, wipe_key_if_done
from nanobatch_storage.adapters.database import Database, Transaction
from nanobatch_storage.adapters.retry_sql import retry_execution
from nanobatch_storage.adapters.tables import attempts, credentials, executions, images, results
from nanobatch_storage.domain import Actor, Execution, ExecutionState, NewCredential, PauseReason, ResultState
from nanobatch_storage.errors import ExecutionActiveError, ExecutionFinalError
from nanobatch_storage.views import Cancellation, Retry


class SqlControl:
    """See :class:`nanobatch_storage.ports.Control`."""

    def __init__(self, database: Database, *, window: float) -> None:
        """``window`` is how many calls in flight a new bucket begins with."""
        self._database = database
        self._window = window

    async def cancel(self, actor: Actor, execution_id: str) -> Cancellation:
        """See the port."""

        async def work(tx: Transaction) -> Cancellation:
            execution = await lock_execution(tx, actor, execution_id)
            if not execution.is_final:
                await _cancel_results(tx, execution)
                execution.cancel_requested = True
                execution.close_if_done(tx.now)
                await rows.save(tx, [execution])
                await wipe_key_if_done(tx, execution)
            in_flight, maybe_charged = await _out(tx, execution)
            return Cancellation(execution, in_flight, maybe_charged)

        return await self._database.write(work, actor)

    async def pause(self, actor: Actor, execution_id: str) -> Execution:
        """See the port."""

        async def work(tx: Transaction) -> Execution:
            execution = await lock_execution(tx, actor, execution_id)
            _refuse_final(execution)
            if execution.pause_reason is not PauseReason.USER:
                execution.pause(PauseReason.USER)
                await rows.save(tx, [execution])
            return execution

        return await self._database.write(work, actor)

    async def resume(
        self, actor: Actor, execution_id: str, credential: NewCredential | None, max_cost_micros: int | None
    ) -> Execution:
        """See the port."""

        async def work(tx: Transaction) -> Execution:
            seen = (await find_execution(tx, actor, execution_id)).execution
            _refuse_final(seen)
            bucket = await lock_bucket_for(tx, seen, credential, self._window)
            execution = await lock_execution(tx, actor, execution_id)
            _refuse_final(execution)
            await take_key(tx, execution, credential, bucket)
            if max_cost_micros is not None:
                execution.max_cost_micros = max_cost_micros
            if execution.state is ExecutionState.PAUSED:
                execution.resume()
            elif credential is not None or max_cost_micros is not None:
                execution.touch()
            await rows.save(tx, [execution])
            return execution

        return await self._database.write(work, actor)

    async def retry(self, actor: Actor, execution_id: str, retry: Retry) -> tuple[Execution, int]:
        """See the port."""
        return await self._database.write(
            lambda tx: retry_execution(tx, actor, execution_id, retry, self._window), actor
        )

    async def delete(self, actor: Actor, execution_id: str) -> Sequence[str]:
        """See the port."""

        async def work(tx: Transaction) -> list[str]:
            execution = await lock_execution(tx, actor, execution_id)
            if not execution.is_final or execution.open_attempts:
                raise ExecutionActiveError("The execution has not ended yet: cancel it and wait for its open calls.")
            gone = delete(images).where(images.c.execution_id == execution.id).returning(images.c.blob_path)
            paths = [row.blob_path for row in await tx.connection.execute(gone)]
            await tx.connection.execute(delete(executions).where(executions.c.id == execution.id))
            if execution.credential_id is not None:
                unsaved = (credentials.c.id == execution.credential_id) & credentials.c.saved.is_(False)
                await tx.connection.execute(delete(credentials).where(unsaved))
            return paths

        return await self._database.write(work, actor)


def _refuse_final(execution: Execution) -> None:
    if execution.is_final:
        raise ExecutionFinalError("The execution has ended already.")


async def _cancel_results(tx: Transaction, execution: Execution) -> None:
    """Cancel what is not final, each row with its own revision."""
    active = results.c.state.in_([ResultState.PENDING, ResultState.PROCESSING])
    found = await rows.lock_results(tx, (results.c.execution_id == execution.id) & active)
    out = {attempt.result_id for attempt in await rows.open_attempts(tx, [result.id for result in found])}
    for result in sorted(found, key=lambda result: (result.batch_index, result.variation)):
        if result.id not in out:
            # Nothing was sent: whoever holds the lease finds it gone, and its reservation is free again. One with an
            # open call keeps its lease, so that its picture and its cost can still be written down.
            result.drop_lease()
            execution.reserved_micros -= result.reserved_micros
            result.reserved_micros = 0
        result.ready_at = None
        execution.move(result, ResultState.CANCELLED)
    await rows.save(tx, found)


async def _out(tx: Transaction, execution: Execution) -> tuple[int, int]:
    """Return how many calls are out, and their worst case in micros."""
    calls, worst = func.count().label("calls"), func.coalesce(func.sum(attempts.c.reserved_micros), 0).label("worst")
    statement = select(calls, worst).where(attempts.c.execution_id == execution.id, attempts.c.charged.is_(None))
    row = (await tx.connection.execute(statement)).one()
    return int(row.calls), int(row.worst)
