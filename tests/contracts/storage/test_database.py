"""Transactions under pressure: callers that leave, writers that meet, errors that must not tell."""

from __future__ import annotations

import asyncio
import random

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from nanobatch_storage.adapters import rows
from nanobatch_storage.adapters.tables import secrets
from nanobatch_storage.domain import ResultState


async def test_callers_that_leave_leave_no_connection_behind(store):
    user = await store.user()
    execution = await store.execution(user, 20)
    dice = random.Random(2)

    async def leave(work):
        task = asyncio.create_task(work)
        for _ in range(dice.randint(0, 30)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    for _ in range(10):
        await asyncio.gather(
            *(leave(store.executions.get(user, execution.id)) for _ in range(10)),
            *(leave(store.changes.since(user, execution.id, 0)) for _ in range(10)),
            *(leave(store.change(execution.id, number, ResultState.PROCESSING)) for number in range(5)),
        )
    # More at once than the pool holds, so that a lost connection would be missed.
    await asyncio.gather(*(store.executions.get(user, execution.id) for _ in range(40)))
    if store.database._running:
        await asyncio.wait(store.database._running)
    pool = store.database._engine._engine.pool
    assert pool.checkedout() == (2 if store.database._engine.dialect.name == "sqlite" else 0)  # SQLite keeps its two
    assert sum(r.state is ResultState.PROCESSING for r in await store.results(user, execution.id)) == (
        (await store.executions.get(user, execution.id)).execution.processing
    )


async def test_a_write_that_was_begun_is_finished_though_its_caller_left(store):
    user = await store.user()
    execution = await store.execution(user, 1)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def work(tx):
        found = await rows.lock_execution(tx, execution.id)
        begun.set()
        await go_on.wait()
        found.labels = {"done": "yes"}
        await rows.save(tx, [found])

    task = asyncio.create_task(store.database.write(work))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await asyncio.wait(store.database._running)
    assert (await store.executions.get(user, execution.id)).execution.labels == {"done": "yes"}


async def test_errors_of_the_database_hold_no_values(store):
    """They go to the log, and values are prompts and keys' records."""

    async def work(tx):
        for _ in range(2):
            await tx.connection.execute(insert(secrets), {"name": "x", "record": {"encrypted": "hunter2"}})

    with pytest.raises(IntegrityError) as caught:
        await store.database.write(work)
    assert "hunter2" not in str(caught.value)
