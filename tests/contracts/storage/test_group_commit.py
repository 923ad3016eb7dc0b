"""SQLite's transactions that are committed together stay apart in all that matters."""

import asyncio

import pytest
from sqlalchemy import text

from nanobatch_storage.adapters.database import open_database


@pytest.fixture
async def database(tmp_path):
    async with open_database(f"sqlite:///{tmp_path / 'x.db'}") as opened:
        await opened.write(lambda tx: tx.connection.execute(text("create table numbers (n integer primary key)")))
        yield opened


async def insert(database, n, *, fail=False):
    async def work(tx):
        await tx.connection.execute(text("insert into numbers values (:n)"), {"n": n})
        if fail:
            raise ValueError(n)
        return n

    return await database.write(work)


async def numbers(database):
    async with database.read() as tx:
        return {row.n for row in await tx.connection.execute(text("select n from numbers"))}


async def test_one_that_fails_undoes_its_own_changes_only(database):
    outcomes = await asyncio.gather(*(insert(database, n, fail=n % 3 == 0) for n in range(100)), return_exceptions=True)
    failed = {n for n, outcome in enumerate(outcomes) if isinstance(outcome, ValueError)}
    assert failed == set(range(0, 100, 3))
    assert await numbers(database) == set(range(100)) - failed


async def test_what_is_answered_is_committed(database):
    await insert(database, 1)
    assert await numbers(database) == {1}
    assert await asyncio.gather(*(insert(database, n) for n in range(2, 40))) == list(range(2, 40))
    assert await numbers(database) == set(range(1, 40))


async def test_a_caller_that_is_cancelled_does_not_keep_the_others_from_their_commit(database):
    tasks = [asyncio.create_task(insert(database, n)) for n in range(50)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert {n for n, outcome in enumerate(outcomes) if outcome == n} >= set(range(1, 50, 2))
    await insert(database, 100)
    assert await numbers(database) >= set(range(1, 50, 2)) | {100}


async def test_a_last_one_that_fails_still_commits_the_group(database):
    await asyncio.gather(
        insert(database, 1), insert(database, 2), insert(database, 3, fail=True), return_exceptions=True
    )
    assert await numbers(database) == {1, 2}
