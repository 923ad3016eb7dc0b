"""A user who floods the queue, and those beside them, on both databases."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from nanobatch_storage.adapters.leases_sql import SqlLeases
from nanobatch_storage.adapters.ledger_sql import SqlLedger
from nanobatch_storage.domain import LeaseRef

LEASE = timedelta(minutes=10)


@pytest.fixture
def leases(store):
    return SqlLeases(store.database, duration=LEASE, ahead=0)


@pytest.fixture
def ledger(store):
    return SqlLedger(store.database)


async def test_a_single_prompt_is_next_however_much_another_user_has_waiting(store, leases, ledger):
    flood, small = await store.user(), await store.user()
    for _ in range(20):
        await store.execution(flood, 20)
    held = (await leases.take(10)).leases
    single = await store.execution(small, 1)
    assert (await leases.take(10)).leases == ()  # the bucket that both share is full
    await ledger.release([LeaseRef(held[0].result.id, held[0].result.lease_id)])
    assert [lease.execution.id for lease in (await leases.take(10)).leases] == [single.id]


async def test_users_who_share_a_full_bucket_take_turns_however_many_executions_one_of_them_has(store, leases, ledger):
    users = [await store.user() for _ in range(12)]
    for user in users:
        for _ in range(6 if user is users[0] else 1):
            await store.execution(user, 6)
    served, held = Counter(), list((await leases.take(10)).leases)
    for _ in range(38):  # with the ten at first: four rounds of twelve
        served.update(lease.execution.user_id for lease in held[-1:])
        oldest = held.pop(0)
        ref = LeaseRef(oldest.result.id, oldest.result.lease_id)
        await ledger.release([ref])
        held += (await leases.take(1)).leases
        assert len(held) == 10
    assert set(served) == {user.user_id for user in users}
    assert max(served.values()) - min(served.values()) <= 1
    assert sum(served.values()) ** 2 / (12 * sum(count * count for count in served.values())) >= 0.95


async def test_a_credential_that_is_stuck_holds_nobody_else_back(store, leases):
    stuck, other = await store.user(), await store.user()
    slow = await store.paid(stuck, 20)  # a key that was not checked yet has one call out
    assert len((await leases.take(5)).leases) == 1
    free = await store.execution(other, 5)
    assert {lease.execution.id for lease in (await leases.take(5)).leases} == {free.id}
    assert slow.id != free.id


async def test_those_who_ask_at_once_share_what_there_is_and_no_result_goes_to_two(store, leases):
    user = await store.user()
    await store.execution(user, 20)
    taken = await asyncio.gather(*(leases.take(4) for _ in range(4)))
    ids = [lease.result.id for one in taken for lease in one.leases]
    assert len(ids) == len(set(ids)) == 10  # the bucket's window
    assert all(one.leases for one in taken)
    assert len({one.now for one in taken}) < 4  # not each with a look of its own


async def test_what_a_dead_generator_held_is_leased_before_its_users_other_work(store):
    user = await store.user()
    leases = SqlLeases(store.database, duration=timedelta(seconds=30), ahead=0)
    hit = await store.execution(user, 8)
    held = {lease.result.id for lease in (await leases.take(8)).leases}
    for _ in range(3):
        await store.execution(user, 20)
    store.clock.advance(timedelta(seconds=31))
    again = (await leases.take(8)).leases
    assert {lease.result.id for lease in again} == held
    assert {lease.execution.id for lease in again} == {hit.id}
    assert len((await leases.take(10)).leases) == 2  # lost leases have given their places back once, not twice
