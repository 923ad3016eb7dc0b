"""Executions and results, made and read."""

from __future__ import annotations

import statistics
from collections.abc import Collection
from datetime import timedelta

from sqlalchemy import literal, select, tuple_

from nanobatch_runtime.ids import is_id
from nanobatch_storage import cursors
from nanobatch_storage.adapters import rows
from nanobatch_storage.adapters.access import find_execution, visible
from nanobatch_storage.adapters.creation_sql import create_execution
from nanobatch_storage.adapters.database import Database, Transaction
from nanobatch_storage.adapters.tables import UtcDateTime, attempts, executions, results
from nanobatch_storage.domain import Actor, Execution, NewExecution, ResultState
from nanobatch_storage.errors import ResultNotFoundError
from nanobatch_storage.views import ExecutionView, Latency, ListedExecution, Page, ResultView

_LATENCY_SAMPLES = 200


class SqlExecutions:
    """See :class:`nanobatch_storage.ports.Executions`."""

    def __init__(self, database: Database, *, window: float) -> None:
        """``window`` is how many calls in flight a new bucket begins with."""
        self._database = database
        self._window = window

    async def create(self, actor: Actor, new: NewExecution) -> tuple[Execution, bool]:
        """See the port."""
        return await self._database.write(lambda tx: create_execution(tx, actor, new, self._window), actor)

    async def get(self, actor: Actor, execution_id: str) -> ExecutionView:
        """See the port."""
        async with self._database.read(actor) as tx:
            return await find_execution(tx, actor, execution_id)

    async def list(self, actor: Actor, page_size: int, cursor: str) -> Page[ListedExecution]:
        """See the port."""
        statement = select(executions).where(visible(executions, actor))
        if cursor:
            time, last = cursors.read_execution(cursor)
            place = tuple_(executions.c.create_time, executions.c.id)
            statement = statement.where(place < tuple_(literal(time, UtcDateTime), literal(last, executions.c.id.type)))
        statement = statement.order_by(executions.c.create_time.desc(), executions.c.id.desc()).limit(page_size + 1)
        async with self._database.read(actor) as tx:
            found = [rows.execution_from(row) for row in await tx.connection.execute(statement)]
            page = found[:page_size]
            covers = await _covers(tx, [execution.id for execution in page if execution.completed])
        listed = [ListedExecution(execution, covers.get(execution.id)) for execution in page]
        if len(found) <= page_size:
            return Page(listed, "")
        return Page(listed, cursors.after_execution(page[-1].create_time, page[-1].id))

    async def list_results(
        self, actor: Actor, execution_id: str, page_size: int, cursor: str, states: Collection[ResultState]
    ) -> Page[ResultView]:
        """See the port."""
        statement = select(results).where(results.c.execution_id == execution_id)
        if states:
            statement = statement.where(results.c.state.in_(list(states)))
        if cursor:
            batch_index, variation = cursors.read_result(cursor)
            statement = statement.where(
                tuple_(results.c.batch_index, results.c.variation) > tuple_(literal(batch_index), literal(variation))
            )
        statement = statement.order_by(results.c.batch_index, results.c.variation).limit(page_size + 1)
        async with self._database.read(actor) as tx:
            view = await find_execution(tx, actor, execution_id)
            found = [rows.result_from(row) for row in await tx.connection.execute(statement)]
            page = [view.show(result, tx.now) for result in found[:page_size]]
        if len(found) <= page_size:
            return Page(page, "")
        last = found[page_size - 1]
        return Page(page, cursors.after_result(last.batch_index, last.variation))

    async def get_result(self, actor: Actor, result_id: str) -> ResultView:
        """See the port."""
        if not is_id(result_id):
            raise ResultNotFoundError
        async with self._database.read(actor) as tx:
            statement = select(results).where(results.c.id == result_id, visible(results, actor))
            row = (await tx.connection.execute(statement)).one_or_none()
            if row is None:
                raise ResultNotFoundError
            result = rows.result_from(row)
            view = await find_execution(tx, actor, result.execution_id)
            return view.show(result, tx.now)

    async def latency(self, model: str) -> Latency:
        """See the port."""
        statement = (
            select(attempts.c.processing_ms)
            .where(attempts.c.model == model, attempts.c.outcome == "COMPLETED", attempts.c.processing_ms.is_not(None))
            .order_by(attempts.c.end_time.desc())
            .limit(_LATENCY_SAMPLES)
        )
        async with self._database.read() as tx:
            samples = sorted((await tx.connection.execute(statement)).scalars())
        if not samples:
            return Latency()
        nearest_rank = -(-len(samples) * 95 // 100) - 1
        return Latency(
            sample_count=len(samples),
            median=timedelta(milliseconds=statistics.median(samples)),
            p95=timedelta(milliseconds=samples[nearest_rank]),
        )


async def _covers(tx: Transaction, execution_ids: Collection[str]) -> dict[str, str]:
    """Return the first thumbnail of each that has one: one walk of the index by place, ended at its first hit."""
    if not execution_ids:
        return {}
    first = (
        select(results.c.thumbnail_image_id)
        .where(results.c.execution_id == executions.c.id, results.c.thumbnail_image_id.is_not(None))
        .order_by(results.c.batch_index, results.c.variation)
        .limit(1)
        .correlate(executions)
        .scalar_subquery()
        .label("cover")
    )
    statement = select(executions.c.id, first).where(executions.c.id.in_(execution_ids))
    return {row.id: row.cover for row in await tx.connection.execute(statement) if row.cover}
