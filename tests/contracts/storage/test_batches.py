"""Calls that come together are done in one transaction, and none of them pays for another's trouble."""

import asyncio

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from nanobatch_storage.adapters.batches import Batches, in_transaction
from nanobatch_storage.adapters.tables import secrets
from nanobatch_storage.errors import LeaseLostError


class Notes:
    """Stores names as shared secrets, and remembers how they came."""

    def __init__(self, database):
        self.batches = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.notes = Batches(database, in_transaction(database, self.work))

    async def work(self, tx, names):
        self.batches.append(list(names))
        await self.gate.wait()
        for name in names:
            if name != "lost":
                await tx.connection.execute(insert(secrets).values(name=name, record={}))
        return [LeaseLostError() if name == "lost" else name.upper() for name in names]


@pytest.fixture
async def notes(store):
    return Notes(store.database)


async def stored(store):
    async with store.database.read() as tx:
        found = {row.name for row in await tx.connection.execute(select(secrets.c.name))}
    return {name for name in found if len(name) < 3}


async def test_what_comes_while_one_runs_is_done_together_next(notes, store):
    assert await asyncio.gather(*(notes.notes.do(name) for name in "abcd")) == ["A", "B", "C", "D"]
    assert notes.batches in ([["a", "b", "c", "d"]], [["a"], ["b", "c", "d"]])
    assert await notes.notes.do("e") == "E"
    assert notes.batches[-1] == ["e"]
    assert await stored(store) == set("abcde")


async def test_each_hears_its_own_outcome(notes, store):
    outcomes = await asyncio.gather(*map(notes.notes.do, ("a", "lost", "b")), return_exceptions=True)
    assert [outcomes[0], outcomes[2]] == ["A", "B"]
    assert isinstance(outcomes[1], LeaseLostError)
    assert await stored(store) == {"a", "b"}


async def test_who_spoils_the_transaction_spoils_nobody_elses(notes, store):
    outcomes = await asyncio.gather(*map(notes.notes.do, ("a", "b", "b", "c")), return_exceptions=True)
    assert [isinstance(one, IntegrityError) for one in outcomes] == [False, False, True, False]
    assert await stored(store) == {"a", "b", "c"}


async def test_who_has_gone_before_its_turn_is_not_done(notes, store):
    notes.gate.clear()
    first, second = asyncio.ensure_future(notes.notes.do("a")), asyncio.ensure_future(notes.notes.do("b"))
    await asyncio.sleep(0)  # both stand in line; the batch has not been made up yet
    second.cancel()
    notes.gate.set()
    assert await first == "A"
    assert await stored(store) == {"a"}
