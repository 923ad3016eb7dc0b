"""Leases count from when they are given, not from when somebody began to wait for the rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import pytest
from sqlalchemy import text

from nanobatch_runtime.testing import eventually
from nanobatch_storage.adapters import rows
from nanobatch_storage.adapters.database import open_database
from nanobatch_storage.adapters.leases_sql import SqlLeases
from nanobatch_storage.domain import LeaseRef

LEASE = timedelta(seconds=30)


@pytest.fixture
def leases(store) -> SqlLeases:
    return SqlLeases(store.database, duration=LEASE)


async def test_a_lease_that_was_waited_for_is_as_long_as_any_other(store, leases):
    user = await store.user()
    execution = await store.execution(user, 1)
    async with locked(store, execution.id):
        taking = asyncio.create_task(leases.take(1))
        await waiting_for_a_lock(store)
        store.clock.advance(timedelta(seconds=20))
    (lease,) = (await taking).leases
    assert lease.result.lease_expires_at == store.clock.now() + LEASE


async def test_an_extension_that_was_waited_for_is_as_long_as_any_other(store, leases, database_url):
    user = await store.user()
    execution = await store.execution(user, 1)
    (lease,) = (await leases.take(1)).leases
    ref = LeaseRef(lease.result.id, lease.result.lease_id)
    async with AsyncExitStack() as stack:
        database = store.database
        if database.dialect.name == "postgresql":  # whose own clock is read within the statement
            database = await stack.enter_async_context(open_database(database_url))
        async with locked(store, execution.id):
            extending = asyncio.create_task(SqlLeases(database, duration=LEASE).extend([ref]))
            await waiting_for_a_lock(store)
            store.clock.advance(timedelta(seconds=20))
            before_it_is_let_in = await database.now()
        assert await extending == []
    (result,) = await store.results(user, execution.id)
    assert result.lease_expires_at >= before_it_is_let_in + LEASE


async def test_an_execution_that_was_waited_for_is_as_it_is_now_and_what_changes_in_it_is_kept(store):
    """However many revisions were given out meanwhile: rows are found by them on PostgreSQL."""
    user = await store.user()
    first, second = sorted([(await store.execution(user, 1)).id, (await store.execution(user, 1)).id])

    async def many_changes(tx) -> None:
        execution = await rows.lock_execution(tx, second)
        for _ in range(50):
            execution.touch()
            execution.cost_micros += 1
            await rows.save(tx, [execution])

    async def one_more(tx) -> list[str]:
        held = await rows.lock_executions(tx, [second, first])
        held[second].touch()
        held[second].cost_micros += 1
        await rows.save(tx, list(held.values()))
        return list(held)

    async with locked(store, second, many_changes):
        changing = asyncio.create_task(store.database.write(one_more))
        await waiting_for_a_lock(store)
    assert await changing == [first, second]
    async with store.database.read() as tx:
        found = await tx.connection.execute(text(f"select cost_micros, revision from executions where id = '{second}'"))
        assert tuple(found.one()) == (51, 2 + 51)


async def test_an_execution_that_is_deleted_while_it_is_waited_for_is_not_there(store):
    user = await store.user()
    execution = await store.execution(user, 1)

    async def delete(tx) -> None:
        await tx.connection.execute(text(f"delete from executions where id = '{execution.id}'"))

    async with locked(store, execution.id, delete):
        locking = asyncio.create_task(store.database.write(lambda tx: rows.lock_execution(tx, execution.id)))
        await waiting_for_a_lock(store)
    assert await locking is None


async def test_a_change_that_finds_no_row_undoes_all_that_came_with_it(store):
    user = await store.user()
    kept, gone = await store.execution(user, 1), await store.execution(user, 1)

    async def work(tx) -> None:
        held = await rows.lock_executions(tx, [kept.id, gone.id])
        await tx.connection.execute(text(f"delete from executions where id = '{gone.id}'"))
        for execution in held.values():
            execution.cost_micros = 7
        await rows.save(tx, list(held.values()))

    with pytest.raises(AssertionError, match="locked"):
        await store.database.write(work)
    async with store.database.read() as tx:
        found = await tx.connection.execute(text("select cost_micros from executions"))
        assert [row.cost_micros for row in found] == [0, 0]


@asynccontextmanager
async def locked(store, execution_id: str, at_last=None) -> AsyncIterator[None]:
    """Hold the rows of an execution in a transaction of somebody else, who does something to them ``at_last``."""
    held, over = asyncio.Event(), asyncio.Event()

    async def work(tx) -> None:
        await rows.lock_execution(tx, execution_id)
        await rows.lock_results(tx, text("true"))
        held.set()
        await over.wait()
        if at_last is not None:
            await at_last(tx)

    holding = asyncio.create_task(store.database.write(work))
    await held.wait()
    try:
        yield
    finally:
        over.set()
        await holding


async def waiting_for_a_lock(store) -> None:
    """Wait until a second writer has begun and cannot go on."""

    async def waits() -> bool:
        async with store.database.read() as tx:
            if tx.connection.dialect.name == "sqlite":  # writers take turns before they begin
                return len(store.database._running) > 1
            found = await tx.connection.execute(text("select 1 from pg_stat_activity where wait_event_type = 'Lock'"))
            return bool(found.all())

    await eventually(waits)
