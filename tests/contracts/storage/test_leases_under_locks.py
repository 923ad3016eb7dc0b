"""Leases count from when they are given, not from when somebody began to wait for the rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from sqlalchemy import text

from nanobatch_runtime.testing import eventually
from nanobatch_storage.adapters import rows
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


async def test_an_extension_that_was_waited_for_is_as_long_as_any_other(store, leases):
    user = await store.user()
    execution = await store.execution(user, 1)
    (lease,) = (await leases.take(1)).leases
    ref = LeaseRef(lease.result.id, lease.result.lease_id)
    async with locked(store, execution.id):
        extending = asyncio.create_task(leases.extend([ref]))
        await waiting_for_a_lock(store)
        store.clock.advance(timedelta(seconds=20))
    assert await extending == []
    (result,) = await store.results(user, execution.id)
    assert result.lease_expires_at == store.clock.now() + LEASE


@asynccontextmanager
async def locked(store, execution_id: str) -> AsyncIterator[None]:
    """Hold the rows of an execution in a transaction of somebody else."""
    held, over = asyncio.Event(), asyncio.Event()

    async def work(tx) -> None:
        await rows.lock_execution(tx, execution_id)
        await rows.lock_results(tx, text("true"))
        held.set()
        await over.wait()

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
